"""Who watches a search."""

import os
import threading

import optuna

from common.translations import language_of
from monitoring.observer import FILES_CLOSE_S, SERVER_CLOSE_S, BackgroundObserver, Observer
from smart_tuner.monitors.study_report import StudyReportFile
from smart_tuner.plan import Plan


def study_observers(study: optuna.Study, plan: Plan, *, n_trials: int) -> list[Observer]:
    """The report, Telegram where a token is set, and MLflow, as the settings say of runs; all behind queues."""
    hp = plan.settings.hparams
    report = StudyReportFile(study, plan.directory, language_of(os.environ), n_trials=n_trials)
    watching: list[Observer] = [BackgroundObserver(report, patience_s=FILES_CLOSE_S)]
    if hp.telegram_monitoring:
        from monitoring.telegram import account_from
        from smart_tuner.monitors.study_telegram import StudyTelegram

        if (account := account_from(os.environ)) is not None:
            closing = threading.Event()
            language = language_of(os.environ) if hp.telegram_language == "auto" else hp.telegram_language
            observer = StudyTelegram(account, study.study_name, language=language, closing=closing)
            watching.append(BackgroundObserver(observer, closing=closing, patience_s=SERVER_CLOSE_S))
    if hp.mlflow_logging:
        from monitoring.mlflow_store import close_patience_s
        from smart_tuner.monitors.study_mlflow import StudyMLflow

        tracker = StudyMLflow(
            study.study_name, experiment=hp.mlflow_experiment_name, tracking_uri=hp.mlflow_tracking_uri
        )
        watching.append(BackgroundObserver(tracker, patience_s=close_patience_s(hp.mlflow_tracking_uri)))
    return watching

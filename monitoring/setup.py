"""Which observers a run gets."""

import os
import threading

from common.translations import language_of
from hparams import HParams
from monitoring.console import ConsoleObserver
from monitoring.observer import FILES_CLOSE_S, SERVER_CLOSE_S, BackgroundObserver, Observer
from monitoring.report.observer import ReportFile
from monitoring.sample_files import SampleFiles


def observers(hp: HParams) -> list[Observer]:
    """Who watches this run. All but the console sit behind queues."""
    watching: list[Observer] = [ConsoleObserver()]
    if hp.save_attention_plots:
        watching.append(_of_files(SampleFiles(plot_every=hp.attention_plot_frequency)))
    if hp.tensorboard_logging:
        from monitoring.tensorboard import TensorBoardObserver

        watching.append(
            _of_files(
                TensorBoardObserver(
                    images=hp.log_attention_weights,
                    alignment_scalars=hp.log_alignment_metrics,
                    picture_every=hp.attention_plot_frequency,
                )
            )
        )
    if hp.mlflow_logging:
        watching.append(_mlflow(hp))
    if hp.debug_reporting:
        from monitoring.debug_report import DebugReport

        watching.append(_of_files(DebugReport(every=hp.debug_report_interval)))
    if hp.telegram_monitoring:
        watching += telegram_observers(hp)
    # last: at the end it shows what the others wrote
    watching.append(
        BackgroundObserver(ReportFile(language_of(os.environ)), patience_s=FILES_CLOSE_S, closes_last=True)
    )
    return watching


def _mlflow(hp: HParams) -> BackgroundObserver:
    from monitoring.mlflow import MLflowObserver
    from monitoring.mlflow_store import close_patience_s

    observer = MLflowObserver(
        experiment=hp.mlflow_experiment_name,
        tracking_uri=hp.mlflow_tracking_uri,
        images=hp.log_attention_weights,
        alignment_scalars=hp.log_alignment_metrics,
        picture_every=hp.attention_plot_frequency,
    )
    return BackgroundObserver(observer, patience_s=close_patience_s(hp.mlflow_tracking_uri))


def _of_files(observer: Observer) -> BackgroundObserver:
    return BackgroundObserver(observer, patience_s=FILES_CLOSE_S)


def telegram_observers(hp: HParams) -> list[Observer]:
    """One, where the environment holds a bot's token and a chat."""
    from monitoring.telegram import TelegramObserver, account_from

    account = account_from(os.environ)
    if account is None:
        return []
    closing = threading.Event()
    every, language = hp.telegram_notification_interval, hp.telegram_language
    observer = TelegramObserver(account, every=every, language=language, closing=closing)
    return [BackgroundObserver(observer, closing=closing, patience_s=SERVER_CLOSE_S)]

"""What users' notes and scripts for this trainer say: every --hparams string in them is taken, and every parameter that
they list has the type, and where nothing else was decided the default, that they expect."""

import pytest

from hparams import create_hparams, field_info, field_names, resolve_hparams
from support.documented import RECOMMENDED
from text.symbols import symbols
from tools import format_value, overrides_layer

STRINGS = """
learning_rate=1e-3,batch_size=32,use_guided_attn=True
distributed_run=True,batch_size=16
learning_rate=1e-4,batch_size=16
use_guided_attn=True,guide_loss_weight=2.0,use_mmi=True
grad_clip_thresh=0.5,fp16_run=True,emergency_restart_enabled=True
learning_rate=1e-4,batch_size=16,use_guided_attn=True,guide_loss_weight=2.0,use_mmi=True,grad_clip_thresh=0.5,fp16_run=True
max_restart_attempts=5,emergency_restart_enabled=True
telegram_monitoring=True
telegram_notification_interval=1000
debug_reporting=True
debug_report_interval=500
mlflow_logging=True
mlflow_experiment_name=tacotron2_experiment
emergency_restart_enabled=True,max_restart_attempts=3
nan_detection_threshold=1e-6,gradient_explosion_threshold=1000
grad_clip_thresh=0.1
dynamic_loss_scaling=True
fp16_run=False
use_guided_attn=True,guide_loss_weight=5.0
learning_rate=1e-5
batch_size=32
emergency_restart_enabled=True
batch_size=4
use_bucket_batching=True
learning_rate=1e-3,batch_size=16
learning_rate=5e-5,batch_size=16
guide_loss_weight=1.0,use_guided_attn=True
guide_loss_weight=2.0,use_guided_attn=True
guide_loss_weight=5.0,use_guided_attn=True
""".split()

# One line a parameter: what existing configurations set, and, behind "|", our default where it is another.
LISTED = """
epochs=500000
iters_per_checkpoint=1000
save_interval=2000 | 10000
validate_interval=200
warmup_steps=2000
seed=1234
dynamic_loss_scaling=True
fp16_run=True | False
distributed_run=False
dist_backend=nccl
dist_url=tcp://localhost:54321
cudnn_enabled=True
cudnn_benchmark=False
ignore_layers=[embedding.weight]
mmi_ignore_layers=[decoder.linear_projection.linear_layer.weight,decoder.linear_projection.linear_layer.bias,decoder.gate_layer.linear_layer.weight] | [mmi.hidden.weight,mmi.hidden.bias,mmi.output.weight,mmi.output.bias]
load_mel_from_disk=False
dataset_path=data/
training_files=data/dataset/train.csv
validation_files=data/dataset/val.csv
text_cleaners=[transliteration_cleaners_with_stress] | [english_cleaners]
max_wav_value=32768.0
sampling_rate=22050
filter_length=1024
hop_length=256
win_length=1024
n_mel_channels=80
mel_fmin=0.0
mel_fmax=8000.0
n_symbols=148
symbols_embedding_dim=512
encoder_kernel_size=5
encoder_n_convolutions=3
encoder_embedding_dim=512
n_frames_per_step=1
decoder_rnn_dim=1024
prenet_dim=256
max_decoder_steps=2500
gate_threshold=0.5
p_attention_dropout=0.1
p_decoder_dropout=0.1
p_teacher_forcing=1.0
attention_rnn_dim=1024
attention_dim=128
attention_location_n_filters=32
attention_location_kernel_size=31
postnet_embedding_dim=512
postnet_kernel_size=5
postnet_n_convolutions=5
use_gst=True | False
ref_enc_filters=[32,32,64,64,128,128]
ref_enc_size=[3,3]
ref_enc_strides=[2,2]
ref_enc_pad=[1,1]
ref_enc_gru_size=128
token_embedding_size=256
token_num=8
num_heads=4
no_dga=False
use_saved_learning_rate=False
learning_rate=0.001
learning_rate_decay=0.5
learning_rate_decay_patience=2000
learning_rate_min=1e-05
weight_decay=1e-06
grad_clip_thresh=1.0
batch_size=48
mask_padding=True
use_mmi=True | False
drop_frame_rate=0.05 | 0.0
use_gaf=True
update_gaf_every_n_step=3 | 10
max_gaf=0.5
use_dynamic_guide_loss=True
guide_loss_initial_weight=0.5 | 1.0
guide_loss_decay_start=3000
guide_loss_decay_steps=30000
global_mean_npy=ruslan_global_mean.npy | global_mean.npy
dropout_rate=0.3
encoder_dropout_rate=0.05
postnet_dropout_rate=0.1
early_stopping=True
early_stopping_patience=15
early_stopping_min_delta=0.0005
attention_alignment_loss_weight=1.0 | 0.0
use_attention_smoothing=True | False
attention_smoothing_factor=0.1
use_scheduled_teacher_forcing=True | False
teacher_forcing_start_ratio=1.0
teacher_forcing_end_ratio=0.5
teacher_forcing_decay_start=10000
teacher_forcing_decay_steps=50000
use_balanced_sampling=True | False
gradient_accumulation_steps=1
max_grad_norm=1.0
loss_scale_init=512.0
loss_scale_factor=2.0
use_forward_attention=False
use_location_sensitive_attention=True
use_memory_efficient_attention=True | False
attention_chunk_size=None
guided_attention_enabled=True
guide_loss_weight=1.0
log_attention_weights=True
log_alignment_metrics=True
alignment_diagonal_threshold=0.5
validation_attention_analysis=True
save_attention_plots=True
attention_plot_frequency=1000
""".split("\n")[1:-1]  # noqa: E501 - one line a parameter

LISTED_LATER = """
use_bucket_batching=True
force_model_reinit=False
xavier_init=True
use_audio_quality_enhancement=True
use_mmi=False
use_guided_attn=True
guide_loss_weight=1.0
guide_loss_initial_weight=1.0
use_ddc_loss=False
ddc_loss_weight=0.1
use_ddc=False
ddc_consistency_weight=0.1
grad_clip_thresh=1.0
dynamic_loss_scaling=True
fp16_run=False
emergency_restart_enabled=True
max_restart_attempts=3
nan_detection_threshold=1e-6
gradient_explosion_threshold=1000
telegram_monitoring=True
telegram_notification_interval=1000
debug_reporting=True
debug_report_interval=500
mlflow_logging=True
mlflow_experiment_name=tacotron2_experiment
tensorboard_logging=True
""".split()


def canonical(spelling: str) -> str:
    return next(name for name in field_names() if spelling in (name, *field_info(name).aliases))


@pytest.mark.parametrize("text", [*STRINGS, *RECOMMENDED.values()])
def test_a_string_of_settings_is_taken_and_each_has_its_value(text: str) -> None:
    hp = create_hparams(text)
    for assignment in overrides_layer(text).assignments:
        value = getattr(hp, canonical(assignment.name))
        written = assignment.value
        assert value == (type(value)(written) if not isinstance(value, bool) else written == "True"), assignment.name


@pytest.mark.parametrize(("preset", "text"), RECOMMENDED.items())
def test_a_recommended_configuration_is_the_same_as_a_preset_and_as_overrides(preset: str, text: str) -> None:
    assert resolve_hparams(preset=preset).hparams == create_hparams(text)


def test_the_list_holds_108_parameters_once_each() -> None:
    names = [line.partition("=")[0] for line in LISTED]
    assert len(names) == len(set(names)) == 108
    assert len(symbols) == 148


@pytest.mark.parametrize("line", [*LISTED, *LISTED_LATER])
def test_a_listed_parameter_is_accepted_with_its_value_and_has_the_default_that_is_listed(line: str) -> None:
    setting, _, ours = (part.strip() for part in line.partition("|"))
    name, _, known = setting.partition("=")
    create_hparams(setting)
    assert create_hparams(f"{name}={ours or known}") == create_hparams(), f"{name} has another default"


def test_all_listed_values_are_accepted_together_and_each_takes_effect() -> None:
    settings = [line.partition("|")[0].strip() for line in LISTED]
    text = ",".join(settings)
    hp = create_hparams(text)
    differing = {line.partition("=")[0] for line in LISTED if "|" in line}
    changed = {name for name in field_names() if getattr(hp, name) != getattr(create_hparams(), name)}
    assert changed == differing
    assert create_hparams(",".join(f"{name}={format_value(value)}" for name, value in hp.canonical().items())) == hp

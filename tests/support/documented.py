"""The recommended configurations of the documents."""

RECOMMENDED = {
    "prototyping": (
        "learning_rate=1e-3,batch_size=8,use_guided_attn=True,guide_loss_weight=1.0,grad_clip_thresh=1.0,fp16_run=False"
    ),
    "stable": (
        "learning_rate=1e-4,batch_size=16,use_guided_attn=True,guide_loss_weight=2.0,use_mmi=True,grad_clip_thresh=0.5,"
        "fp16_run=True,emergency_restart_enabled=True"
    ),
    "quality": (
        "learning_rate=5e-5,batch_size=32,use_guided_attn=True,guide_loss_weight=3.0,use_mmi=True,use_ddc_loss=True,"
        "ddc_loss_weight=0.1,grad_clip_thresh=0.3,fp16_run=True,emergency_restart_enabled=True"
    ),
    "distributed": (
        "distributed_run=True,batch_size=8,learning_rate=1e-4,use_guided_attn=True,grad_clip_thresh=0.5,fp16_run=True"
    ),
}

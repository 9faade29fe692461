"""The path of a GPU on a device that computes nothing: a tensor left on the host raises where it meets another one.

Its tensors have shapes and types but no values, so asking for one raises too. Run as a process of its own, since
PyTorch knows of the device from then on. Autograd does not go there; the backward functions are called one by one.
"""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import backend_registration

import losses.mmi
import model as model_module
from corpus.batch import Batch, gate_targets
from hparams import create_hparams
from kernels import decoder_steps, inference
from kernels.ctc import _CtcLosses
from kernels.decoder_autograd import AttentionLoop, RecurrentLoop
from kernels.inference import TorchWeights
from loss_function import tacotron2_loss
from losses.auxiliary import AuxiliaryLosses
from model import Tacotron2
from modules import mmi_recognizer
from support.corpora import TINY

OPTIONS = (
    "use_guided_attn=True,attention_alignment_loss_weight=0.5,use_mmi=True,use_gaf=False,use_ddc_loss=True,"
    "ddc_reduction_factor=4,n_frames_per_step=2,use_gst=True,ref_enc_filters=[4,4],ref_enc_gru_size=8,"
    "token_embedding_size=8,num_heads=2,token_num=3,"
    # drawing needs a generator of the device
    "dropout_rate=0,encoder_dropout_rate=0,postnet_dropout_rate=0,p_attention_dropout=0,p_decoder_dropout=0"
)


def register() -> torch.device:
    backend_registration._DummyBackendModule.get_amp_supported_dtype = lambda self: [torch.bfloat16]
    backend_registration._setup_privateuseone_for_python_backend("standin")
    for module in (model_module, losses.mmi, inference, decoder_steps):
        module.is_gpu = lambda device: True
    mmi_recognizer.RECOGNIZER_DROPOUT = 0.0
    # the library's recurrent layers have no shape functions: what matters is that all they get is there
    torch.lstm = lambda x, states, weights, *rest: (recurrent(x, states[0].size(2), weights), None, None)
    nn.GRU.forward = lambda self, x: (recurrent(x, self.hidden_size, list(self.parameters())), None)
    return torch.device("standin", 0)


def recurrent(x: Tensor, width: int, weights: list[Tensor]) -> Tensor:
    return x.new_empty(*x.shape[:2], width) + torch.stack([weight.sum() for weight in weights]).sum()


def moved(model: Tacotron2, device: torch.device) -> Tacotron2:
    """With new parameters and buffers there; fake ones can't be moved."""
    for module in model.modules():
        for name, old in list(module.named_parameters(recurse=False)):
            module._parameters[name] = nn.Parameter(torch.empty(old.shape, device=device), requires_grad=False)
        for name, old in list(module.named_buffers(recurse=False)):
            module._buffers[name] = torch.empty(old.shape, dtype=old.dtype, device=device)
    return model


def pass_forward(model: Tacotron2, hp: Any, device: torch.device) -> Tensor:
    """-> the loss of all options"""

    def integers(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.long, device=device)

    mel_lengths = integers(3)
    batch = Batch(
        integers(3, 13), integers(3), torch.empty(3, 8, 44, device=device), mel_lengths,
        gate_targets(mel_lengths, 44, r=2), ("a", "b", "c"), n_frames=1, speakers=integers(3),
    )  # fmt: skip
    outputs = model(batch.text, batch.text_lengths, batch.mel, batch.mel_lengths, speakers=batch.speakers)
    terms = tacotron2_loss(
        outputs, batch.mel, batch.gate, text_lengths=batch.text_lengths, mel_lengths=mel_lengths, hp=hp, r=2,
        mask_padding=True, guide=1.0,
    )  # fmt: skip
    losses = AuxiliaryLosses.__new__(AuxiliaryLosses)  # its factor is made of a number, which a stand-in has not
    losses.hp, losses.model, losses.factor = hp, model, torch.empty((), device=device)
    losses.is_spoken = torch.empty(hp.n_symbols, dtype=torch.bool, device=device)
    return losses.add(terms, outputs, batch, step=0, share=torch.empty((), device=device), by_utterances=1.0).total


def pass_backward(device: torch.device, dtype: torch.dtype | None, chunk: int | None) -> list[Tensor]:
    """All gradients of the three functions."""
    (T, B, N), (D, E, A, kernel_size) = (8, 3, 32), (8, 6, 5, 7)

    def on(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    def context() -> Any:
        found = SimpleNamespace(needs_input_grad=(True,) * 11)
        found.save_for_backward = lambda *tensors: setattr(found, "saved_tensors", tensors)
        return found

    attention, recurrent_loop, ctc = context(), context(), context()
    AttentionLoop.forward(
        attention, on(T, B, 4 * D), on(4 * D, D + E), on(A, D), on(A, 2, kernel_size), on(A), on(B, N, A), on(B, N, E),
        on(B, N), on(T, B, D), dtype, chunk,
    )  # fmt: skip
    RecurrentLoop.forward(recurrent_loop, on(T, B, 4 * D), on(4 * D, D), on(T, B, D), dtype, chunk)
    lengths = [on(*shape, dtype=torch.long) for shape in ((B, 3), (B,), (B,))]
    _CtcLosses.forward(ctc, on(T, B, 9), *lengths, chunk)
    grads = (
        *AttentionLoop.backward(attention, on(T, B, D + E), on(T, B, N)),
        *RecurrentLoop.backward(recurrent_loop, on(T, B, D)),
        *_CtcLosses.backward(ctc, on(B)),
    )
    return [grad for grad in grads if grad is not None]


def main() -> None:
    device = register()
    hp = create_hparams(f"{TINY},{OPTIONS}")
    with FakeTensorMode(), torch.no_grad():
        model = moved(Tacotron2(hp, n_speakers=3).train(), device)
        found = [pass_forward(model, hp, device)]
        for dtype in (None, torch.bfloat16):
            for chunk in (None, 4):
                found += pass_backward(device, dtype, chunk)
        lengths = torch.empty(3, dtype=torch.long, device=device)
        memory = model.decoder.attend(torch.empty(3, 13, 8, device=device), lengths)
        loop = TorchWeights(model.decoder, n_rows=3).begin(model.decoder, memory)
        loop.run()
        found += loop.take()
        try:
            found[0] + torch.ones(3)
        except RuntimeError:
            print("a tensor on the host is noticed")
    print(f"{len(found)} results, on {sorted({tensor.device.type for tensor in found})}")


if __name__ == "__main__":
    main()

"""Fourier transforms."""

import torch

from .sample import Sample, batch_first, const, real

FOURIER = {
    "fft_fft": Sample((5,), lambda x: real(torch.fft.fft(x))),
    "fft_fft: batch last": Sample((5,), lambda x: torch.fft.fft(x.T, dim=0).imag, batch_first),
    "fft_ifft": Sample((5,), lambda x: real(torch.fft.ifft(x.cdouble(), n=7))),
    "fft_rfft": Sample((5,), lambda x: real(torch.fft.rfft(x, norm="ortho"))),
    "fft_irfft": Sample((5, 2), lambda x: torch.fft.irfft(torch.view_as_complex(x))),
    "fft_irfft: filter": Sample(
        (6,), lambda x: torch.fft.irfft(torch.fft.rfft(x) * torch.complex(const(4), const(4).flip(0)), n=6)
    ),
    "fft_fft2": Sample((3, 4), lambda x: torch.fft.fft2(x).real),
    "fft_ifft2": Sample((3, 4), lambda x: real(torch.fft.ifft2(x))),
    "fft_rfft2": Sample((3, 4), lambda x: real(torch.fft.rfft2(x))),
    "fft_irfft2": Sample((3, 4, 2), lambda x: torch.fft.irfft2(torch.view_as_complex(x))),
    "fft_fftn": Sample((3, 4), lambda x: torch.fft.fftn(x, dim=(1, 2)).real),
    "fft_ifftn": Sample((3, 4), lambda x: real(torch.fft.ifftn(x, dim=(1,)))),
    "fft_rfftn": Sample((3, 4), lambda x: real(torch.fft.rfftn(x, dim=(1, 2)))),
    "fft_irfftn": Sample((3, 4, 2), lambda x: torch.fft.irfftn(torch.view_as_complex(x), dim=(1, 2))),
    "fft_hfft": Sample((5, 2), lambda x: torch.fft.hfft(torch.view_as_complex(x))),
    "fft_ihfft": Sample((5,), lambda x: real(torch.fft.ihfft(x).resolve_conj())),
    "fft_hfft2": Sample((3, 4, 2), lambda x: torch.fft.hfft2(torch.view_as_complex(x), dim=(1, 2))),
    "fft_hfftn": Sample((3, 4, 2), lambda x: torch.fft.hfftn(torch.view_as_complex(x), dim=(1, 2))),
    "fft_fftshift": Sample((3, 4), lambda x: torch.fft.fftshift(x, dim=(1, 2))),
    "fft_ifftshift": Sample((3, 4), lambda x: torch.fft.ifftshift(x, dim=1)),
    "stft": Sample(
        (16,), lambda x: real(torch.stft(x, 8, 4, window=torch.hann_window(8).double(), return_complex=True))
    ),
    "istft": Sample(
        (5, 4, 2), lambda x: torch.istft(torch.view_as_complex(x), 8, 4, window=torch.hann_window(8).double())
    ),
}

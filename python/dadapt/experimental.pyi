from ._algorithms import DAdaptAdan
from ._optimizer import Optimizer, _NonFinite, _Params, _StateDtype

__all__ = ["DAdaptAdamPreprint", "DAdaptAdanIP"]

class DAdaptAdamPreprint(Optimizer):
    def __init__(
        self,
        params: _Params,
        lr: float = ...,
        betas: tuple[float, float] = ...,
        eps: float = ...,
        weight_decay: float = ...,
        log_every: int = ...,
        decouple: bool = ...,
        d0: float = ...,
        growth_rate: float = ...,
        fsdp_in_use: bool = ...,
        *,
        layer_scale: float = ...,
        slice_p: int = ...,
        d_cap: float = ...,
        non_finite: _NonFinite = ...,
        d_per_group: bool = ...,
        num_threads: int | None = ...,
        state_dtype: _StateDtype = ...,
        master: bool = ...,
        seed: int = ...,
    ) -> None: ...

class DAdaptAdanIP(DAdaptAdan): ...

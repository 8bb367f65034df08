"""Networks trained by clipped sums (DP-SGD): ghost clipping by Opacus, sampling and noise by ourselves.

    shapes      the CANN residual as numbers: inputs, weights, prediction. numpy only
    sampling    secret Poisson coins of a node
    clipped     per-person gradients clipped and summed (torch and Opacus; needs the extra ``neural``)
    cann        what a node answers in a step of the residual (torch)
    two_tower   persons and items in one space, trained by the same sums (torch)

Nothing here imports torch unless a module that needs it is imported; a bundle is scored without it.
"""

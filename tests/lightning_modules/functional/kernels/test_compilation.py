"""Every kernel through Triton's compiler down to machine code, which needs no GPU: an interpreter takes what a compiler
refuses.
"""

import pytest

from lightning_modules.functional.kernels.availability import interpreted

triton = pytest.importorskip("triton", reason="needs Triton")
if interpreted():
    pytest.skip("needs kernels that are compiled: TRITON_INTERPRET is 1", allow_module_level=True)

FLOATS = {"float": "*fp32", "half": "*bf16", "double": "*fp64"}
TENSORS = {"indices": "*i64", "owners": "*i64", "starts": "*i64", "order": "*i64", "places": "*i32"}
OF_FLOATS = ("sums", "dots", "totals", "weights", "table", "rows", "values", "z")


def compiled(kernel, floats, capability, **constants):
    """Machine code of a kernel whose parameters are of the types that their names tell."""
    types = {**dict.fromkeys(kernel.arg_names, "i32"), **TENSORS, **dict.fromkeys(OF_FLOATS, floats)}
    types |= dict.fromkeys(constants, "constexpr")
    source = triton.compiler.ASTSource(kernel, {name: types[name] for name in kernel.arg_names}, constants)
    target = triton.backends.compiler.GPUTarget("cuda", capability, 32)
    return triton.compile(source, target=target, options={"num_warps": 4}).asm["cubin"]


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", FLOATS)
def test_every_kernel_compiles(dtype, capability):
    from triton.language import float32, float64

    from lightning_modules.functional.kernels import bags, row_selection

    floats, sums = FLOATS[dtype], float64 if dtype == "double" else float32
    bits = {"float": 32, "half": 16, "double": 64}[dtype]
    for uniform in (True, False):
        starts = {"starts": None} if uniform else {}
        owners = {"owners": None} if uniform else {}
        places = {"places": None} if uniform else {}
        assert compiled(bags._bag_sums_kernel, floats, capability, COLUMNS=128, AHEAD=16, SUM=sums, **starts)
        assert compiled(bags._gathered_dot_kernel, floats, capability, ENTRIES=16, COLUMNS=128, SUM=sums, **owners)
        assert compiled(row_selection._select_kernel, floats, capability, SIZE=1024, BITS=bits, **places)
    assert compiled(bags._segment_totals_kernel, floats, capability, ENTRIES=128, SUM=sums)
    assert compiled(row_selection._candidates_kernel, floats, capability, GROUPS=1024, BITS=bits)

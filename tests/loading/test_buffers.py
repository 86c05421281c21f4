"""Output memory is reused once nothing refers to it any more, and not before."""

import torch

from fastpets.loading.buffers import MAX_BUFFERS, Buffers

CPU = torch.device("cpu")


def test_memory_is_reused_once_its_tensor_is_deleted() -> None:
    buffers = Buffers(CPU)
    place = buffers.empty((8, 3), torch.float32).data_ptr()
    assert buffers.empty((8, 3), torch.float32).data_ptr() == place
    assert buffers.empty((4, 3), torch.float16).data_ptr() == place  # a smaller tensor fits, too


def test_memory_that_a_tensor_view_or_array_holds_is_not_reused() -> None:
    buffers = Buffers(CPU)
    held = [buffers.empty((5, 2), torch.float32) for _ in range(3 * MAX_BUFFERS)]
    assert len({tensor.data_ptr() for tensor in held}) == 3 * MAX_BUFFERS
    for number, tensor in enumerate(held):
        tensor.fill_(number)
    views = [tensor.T[1:].view(-1) for tensor in held]
    arrays = [tensor.numpy() for tensor in held]
    del held, tensor  # `tensor` refers to the last one, too
    for _ in range(3 * MAX_BUFFERS):
        buffers.empty((5, 2), torch.float32).fill_(-1)
    assert [view.unique().tolist() for view in views] == [[number] for number in range(3 * MAX_BUFFERS)]
    del views
    for _ in range(3 * MAX_BUFFERS):
        buffers.empty((5, 2), torch.float32).fill_(-1)
    assert all((array == number).all() for number, array in enumerate(arrays))


def test_at_most_a_few_buffers_are_kept() -> None:
    buffers = Buffers(CPU)
    held = [buffers.empty((100,), torch.float32) for _ in range(3 * MAX_BUFFERS)]
    del held
    assert len(buffers._slots) == MAX_BUFFERS


def test_tensors_have_the_requested_shape_and_dtype() -> None:
    tensor = Buffers(CPU).empty((2, 5, 5, 3), torch.bfloat16)
    assert (tensor.shape, tensor.dtype) == ((2, 5, 5, 3), torch.bfloat16)

import pytest
import torch

from lib.noise import Noise

CPU = torch.device("cpu")


def drawn(noise: Noise, n: int) -> torch.Tensor:
    with noise:
        return torch.rand(n)


def test_its_numbers_are_those_of_its_seed_in_pieces_too():
    torch.manual_seed(5)
    noise = Noise(CPU, 3)
    pieces = [drawn(noise, 4)]
    torch.rand(7)  # others draw in between
    pieces.append(drawn(noise, 6))
    assert torch.equal(torch.cat(pieces), torch.rand(10, generator=torch.Generator().manual_seed(3)))


def test_others_draw_as_if_it_were_not_there():
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    drawn(Noise(CPU, 3), 2)
    with pytest.raises(RuntimeError, match="negative dimension"):
        drawn(Noise(CPU, 4), -1)
    assert torch.equal(torch.rand(4), expected)


def test_its_state_is_saved_and_set_inside_and_outside():
    noise = Noise(CPU, 3)
    drawn(noise, 2)
    outside = noise.get_state()
    with noise:
        assert torch.equal(noise.get_state(), outside)
        first = torch.rand(3)
        inside = noise.get_state()
        second = torch.rand(3)
        noise.set_state(outside)
        assert torch.equal(torch.rand(3), first)
    other = Noise(CPU, 9)
    other.set_state(inside)
    assert torch.equal(drawn(other, 3), second)

import pytest
from torch import nn

from lib.hooks import hooked


def pre_hooks(*layers):
    return [len(layer._forward_pre_hooks) for layer in layers]


def test_hooks_are_there_inside_only():
    first, second = nn.Identity(), nn.Identity()
    with hooked(layer.register_forward_pre_hook(lambda *_: None) for layer in (first, second)):
        assert pre_hooks(first, second) == [1, 1]
    assert pre_hooks(first, second) == [0, 0]


def test_an_error_inside_leaves_no_hook():
    layer = nn.Identity()
    with pytest.raises(KeyError), hooked([layer.register_forward_pre_hook(lambda *_: None)]):
        raise KeyError
    assert pre_hooks(layer) == [0]


def test_hooks_before_one_that_cannot_be_registered_go():
    layer = nn.Identity()
    with pytest.raises(AttributeError), hooked(one.register_forward_pre_hook(lambda *_: None) for one in (layer, None)):
        pass
    assert pre_hooks(layer) == [0]

import pytest
import torch
from test_train import network, same, tiny

from lib import compiling, models, pruners, train


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
        patch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
        yield


def state(model) -> dict:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_compiled_training_gives_the_same_network(cache):
    """Up to rounding, over steps with the odd last batch, masks and all."""
    data = tiny(images=41)
    kept = pruners.prune(network("fc"), "rand", 0.3, [])
    rows, models = {}, {}
    for graph in (False, True):
        models[graph] = network("fc")
        rows[graph] = train.train(models[graph], data, epochs=2, masks=kept, batch=16, graph=graph)
    assert [row["step"] for row in rows[False]] == ["eager"] * 2
    assert [row["step"] for row in rows[True]] == ["compiled"] * 2
    for name, tensor in models[True].state_dict().items():
        torch.testing.assert_close(tensor, models[False].state_dict()[name], rtol=1e-3, atol=1e-5)
    assert rows[True][-1]["train_loss"] == pytest.approx(rows[False][-1]["train_loss"], rel=1e-4)


def test_without_a_compiler_training_goes_on_and_says_so(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    eager, fallen = network("fc"), network("fc")
    train.train(eager, tiny(), epochs=1, batch=16)
    with pytest.warns(RuntimeWarning, match=r"without a graph.*no C\+\+ compiler \(no-such-compiler\)") as caught:
        row = train.train(fallen, tiny(), epochs=1, batch=16, graph=True)[0]
    assert "\n" not in str(caught[0].message)
    assert row["step"] == "eager"
    assert same(eager, fallen)


def test_a_compiler_that_fails_leaves_no_trace(monkeypatch):
    """Also when it only fails in the backward pass, after batch norm has counted a batch."""

    def fails_late(function):
        def call(x, labels):
            value, logits = function(x, labels)
            value.register_hook(lambda gradient: (_ for _ in ()).throw(RuntimeError("no\nregisters left")))
            return value, logits

        return call

    monkeypatch.setattr(compiling, "compiler_missing", lambda: None)
    monkeypatch.setattr(compiling, "compiled", fails_late)
    model = network()
    before = state(model)
    data = tiny()
    with pytest.warns(RuntimeWarning, match="only slower: no"):
        step, how = compiling.prepare(compiling.Loss(model, "float32"), *train._batches(data)(torch.arange(8)))
    assert how == "eager"
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert step.model is model


def test_a_graph_is_made_for_long_work_in_mixed_precision_only():
    model = network()
    long = {"shape": (3, 8, 8), "steps": 10**9, "batch": 16}
    assert compiling.pays(model, precision="amp", **long)
    assert not compiling.pays(model, precision="float32", **long)
    assert not compiling.pays(model, precision="amp", **long | {"steps": 1})


@pytest.mark.parametrize(("name", "pays"), [("resnet20", True), ("resnet50", True), ("vgg16", False)])
def test_no_graph_where_nearly_all_of_the_work_is_in_wide_convolutions(name, pays):
    model = models.build(name, (3, 32, 32), 10)
    assert compiling.pays(model, (3, 32, 32), 10**9, 64, "amp") is pays


def test_one_graph_serves_all_full_batches(monkeypatch):
    """Augmented batches lie channels-last in memory; a graph for another layout would be made anew in the epoch."""
    made = []

    def counting(function):
        def backend(graph, inputs):
            made.append(len(inputs))
            return graph.forward

        torch.compiler.reset()
        return torch.compile(function, dynamic=False, backend=backend)

    monkeypatch.setattr(compiling, "compiler_missing", lambda: None)
    monkeypatch.setattr(compiling, "compiled", counting)
    row = train.train(network(), tiny(), epochs=2, batch=16, graph=True)[-1]
    assert row["step"] == "compiled"
    assert len(made) == 1

"""`epalm serve`: a page on this machine that answers about one's own image, clip or sound."""

import os
import tempfile
from contextlib import ExitStack, closing, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from epalm.cli.options import DEFAULT_RUNS
from epalm.console import say
from epalm.errors import EpalmError, UsageError
from epalm.request_fields import Option
from epalm.samples import Modality

_PORT = 7860  # Gradio's
# Read when Gradio is imported: nothing is sent anywhere, and nothing kept in the browser.
_QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False", "GRADIO_MCP_SERVER": "False"}


def serve(
    *,
    run: Annotated[
        list[str] | None,
        Option("A run's name or folder; may be given several times. [default: the latest of each modality]"),
    ] = None,
    runs: Path = DEFAULT_RUNS,
    host: Annotated[str, Option("Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, Option("Port to listen on; 0 takes a free one.", minimum=0, maximum=65535)] = _PORT,
    lm: str | None = None,
    weights: str | None = None,
    device: str = "auto",
) -> None:
    """Open a page in which an image, a clip or a sound of your own is answered about, or captioned.

    Each run keeps its encoder and its language model in memory. Where several runs are of a file's modality, each
    answers. Uploads are deleted when the server ends: Ctrl-C. The page has no password, and nothing is sent elsewhere.

    Examples:

        epalm serve
        epalm serve --run baseline --run my-run --port 8000
    """
    if find_spec("gradio") is None:
        raise UsageError("epalm serve needs Gradio, which is not installed", hint="pip install 'epalm[serve]'")
    import uvicorn

    from epalm.cli.train import asked_to_stop
    from epalm.evaluate.loaded_model import LoadedModel
    from epalm.train.runs.run_folder import RunFolder

    folders = [RunFolder.find(runs, name) for name in dict.fromkeys(run or ())]
    for modality in () if folders else Modality:
        with suppress(UsageError):
            folders.append(RunFolder.find(runs, modality=modality))
    with ExitStack() as held:
        uploads = held.enter_context(tempfile.TemporaryDirectory(prefix="epalm-serve-"))
        os.environ.update(_QUIET, GRADIO_TEMP_DIR=uploads)
        from epalm.cli.evaluate.serve_page import page

        models = []
        for folder in folders or [RunFolder.find(runs, modality=Modality.IMAGE)]:  # which says how to train one
            model = LoadedModel(folder, workers=1, device=device, lm=lm, weights=weights)
            models.append(held.enter_context(closing(model)))
            say(f"{model.modality}: {folder.path}, {model.run.config.lm.name}")
        config = uvicorn.Config(page(models, host), host, port, log_level="warning", timeout_graceful_shutdown=1)
        try:
            listening = held.enter_context(config.bind_socket())
        except SystemExit:  # which is how uvicorn says so
            raise EpalmError(f"{host}:{port} cannot be listened on", hint="give another --port or --host") from None
        say(f"open http://{host}:{listening.getsockname()[1]}/  Ctrl-C stops it")
        with asked_to_stop(lambda: None):  # uvicorn stops at a signal, and then hands it on
            uvicorn.Server(config).run(sockets=[listening])
    say("stopped; the uploads are deleted")

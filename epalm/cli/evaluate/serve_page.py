"""The page of `epalm serve`: a file and a question go in, what each run of its modality says comes out.

Gradio shows it. Media are decoded by processes of their own, and whatever is shown is escaped.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import gradio as gr
from fastapi import FastAPI
from gradio.utils import get_upload_folder
from starlette.middleware.trustedhost import TrustedHostMiddleware

from epalm.console import size_in_words
from epalm.datasets.listing import EXTENSIONS, modality_of
from epalm.errors import EpalmError, MediaError, UsageError
from epalm.samples import Modality

if TYPE_CHECKING:
    from epalm.evaluate.loaded_model import LoadedModel

_LONGEST = 500  # characters of a question
_KEPT = 24 * 3600  # seconds for which an upload stays
_LOOPBACK = ("127.0.0.1", "localhost")
_SHOWN = {
    Modality.IMAGE: '<img src="{}" alt="the uploaded image">',
    Modality.VIDEO: '<video src="{}" controls muted></video>',
    Modality.AUDIO: '<audio src="{}" controls></audio>',
}
_WORDS = {Modality.IMAGE: "an image", Modality.VIDEO: "a clip", Modality.AUDIO: "a sound"}
_STYLE = """
.gradio-container { max-width: 60rem !important; margin: 0 auto !important; }
#shown img, #shown video { max-width: 100%; max-height: 24rem; border-radius: 0.5rem; }
#shown audio { width: 100%; }
#answer .text { font-size: 1.5rem; line-height: 1.3; overflow-wrap: anywhere; margin: 0.5rem 0 0; }
#answer .by, #runs { opacity: 0.75; overflow-wrap: anywhere; }
#answer .fault { border-left: 4px solid #c0392b; padding: 0.25rem 0.75rem; overflow-wrap: anywhere; }
"""


def page(models: "Sequence[LoadedModel]", host: str) -> FastAPI:
    """The application that serves the page; from this machine only it is reached under its own names alone."""
    modalities = list(dict.fromkeys(model.modality for model in models))
    *before, last = (_WORDS[modality] for modality in modalities)
    asks_for = f"Choose {', '.join(before)}{' or ' if before else ''}{last}, and ask about it."
    about = "<br>".join(escape(f"{model.modality}: run {model.run.folder.name}") for model in models)
    most = min(model.limits.max_bytes for model in models)
    turn = Lock()  # one model at a time: they share the machine
    theme = gr.themes.Base(font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace"))
    with gr.Blocks(title="epalm", analytics_enabled=False, delete_cache=(_KEPT // 24, _KEPT)) as blocks:
        gr.HTML(f"<h1>epalm</h1><p>{asks_for} Without a question it is captioned.</p>")
        with gr.Row():
            with gr.Column():
                upload = gr.File(
                    label=f"A file of at most {size_in_words(most)}",
                    file_types=sorted(ending for modality in modalities for ending in EXTENSIONS[modality]),
                    elem_id="upload",
                    height=140,
                )
                shown = gr.HTML(elem_id="shown")
            with gr.Column():
                question = gr.Textbox(
                    label="Question", placeholder="what color is it?", max_length=_LONGEST, elem_id="question"
                )
                ask = gr.Button("Answer", variant="primary", elem_id="ask")
                answer = gr.HTML(elem_id="answer", min_height=120)
        gr.HTML(f'<p id="runs">{about}</p>')
        # Neither event is queued: Gradio's stream of queued ones now and then loses the second of two close together.
        private: dict[str, Any] = {"api_visibility": "private", "queue": False}
        upload.change(_preview, upload, shown, show_progress="hidden", **private)
        answered = partial(_answer, models, turn)
        gr.on([ask.click, question.submit], answered, [upload, question], answer, **private)
    for component in blocks.blocks.values():  # a request may name an address in place of an upload, to be fetched
        for name in ("move_resource_to_block_cache", "async_move_resource_to_block_cache"):
            if move := getattr(component, name, None):
                setattr(component, name, partial(_move_upload, move))
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    if host in _LOOPBACK:  # a page elsewhere whose name is made to point here is not let in
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*_LOOPBACK])
    served: FastAPI = gr.mount_gradio_app(
        app, blocks, path="/", server_name=host, footer_links=[], run_history=False, mcp_server=False,
        allowed_paths=[], show_error=False, max_file_size=most, ssr_mode=False, pwa=False, theme=theme, css=_STYLE,
    )  # fmt: skip
    blocks.has_launched = True  # only then Gradio looks whether a file that a request names was uploaded
    return served


def _move_upload(move: Callable[..., Any], place: Any) -> Any:
    if "://" in str(place):
        raise gr.Error("only uploaded files are read", print_exception=False)
    return move(place)


def _preview(file: str | None) -> str:
    modality = modality_of(Path(file)) if file else None
    return _SHOWN[modality].format(f"/gradio_api/file={quote(str(file))}") if modality else ""


def _answer(models: "Sequence[LoadedModel]", turn: Lock, file: str | None, question: str) -> str:
    """What each run of the file's modality says, as HTML; or what is wrong."""
    path, question, answers = Path(str(file)), question.strip(), []
    try:
        if not file:
            raise UsageError("there is no file yet", hint="choose one, or wait until all of it is uploaded")
        if len(question) > _LONGEST:
            raise UsageError(f"the question has {len(question):,} characters: more than {_LONGEST}", hint="shorten it")
        if not path.resolve().is_relative_to(Path(get_upload_folder()).resolve()):  # whatever Gradio lets through
            raise UsageError("only uploaded files are read", hint="choose the file, or drop it into the field")
        modality = modality_of(path)
        if modality is None:
            raise MediaError(f"{path.name}: its name does not say what it is", hint="give it an ending such as .jpg")
        fitting = [model for model in models if model.modality == modality]
        if not fitting:
            hint = f"epalm extract -m {modality}, epalm train --from-cache, and start epalm serve again"
            raise UsageError(f"{path.name}: no run for {modality} is served", hint=hint)
        for model in fitting:
            with turn:
                started = time.perf_counter()
                text = model.answer(path, question) if question else model.caption(path)
                seconds = time.perf_counter() - started
            by = f"{'answer' if question else 'caption'} by {model.run.folder.name} in {seconds:.1f} s"
            answers.append(f'<p class="text">{escape(text) or "(it said nothing)"}</p><p class="by">{escape(by)}</p>')
        return "".join(answers)
    except EpalmError as error:
        message = error.message.replace(str(file), path.name)
        hint = f"<br>→ {escape(error.hint)}" if error.hint else ""
        return f'<p class="fault" role="alert">{escape(message)}{hint}</p>'

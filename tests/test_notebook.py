"""The notebook of the examples runs from the first cell to the last."""

import re
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parent.parent / "examples" / "quickstart.ipynb"


@pytest.mark.slow
def test_the_notebook_runs_and_its_policy_improves_by_a_step(tmp_path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")  # all three are in the extra [dev]
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "".join(output.get("text", "") for output in outputs)
    before, after = (float(number) for number in re.findall(r"(?:adaptation|step): (-?\d+)", text))
    assert after > before + 100.0
    images = {kind for output in outputs for kind in output.get("data", {})}
    assert {"image/gif", "image/png"} <= images
    assert (tmp_path / "runs" / "notebook" / "evaluation.json").exists()

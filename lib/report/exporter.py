"""nbconvert's exporter `report`: `jupyter nbconvert --to report X.ipynb`, and Report in JupyterLab's export menu."""

from nbconvert.exporters.exporter import Exporter

from lib.report import typeset
from lib.report.typeset import export

__all__ = ["ReportExporter", "export"]


class ReportExporter(Exporter):
    """A notebook as a typeset PDF.

    The entry point's name may hold letters, digits and _ only, or the server answers 404.
    """

    output_mimetype = "application/pdf"
    file_extension = ".pdf"
    export_from_notebook = "Report"

    def from_notebook_node(self, nb, resources=None, **kwargs):
        """(PDF bytes, resources) of notebook node `nb`, after nbconvert's preprocessors; errors as in `typeset.pdf`."""
        nb, resources = super().from_notebook_node(nb, resources, **kwargs)
        about = resources.get("metadata", {})
        data = typeset.pdf(nb, name=about.get("name") or "notebook", where=about.get("path") or ".")
        resources.pop("outputs", None)  # left in, the server would send a zip
        return data, resources

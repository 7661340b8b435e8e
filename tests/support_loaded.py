"""A table beside the shop's own that another system loads, with the files its batches are from."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support_shop import Shop

LOADED = "stock"
_YAML = """\
feed: stock
source:
  path: landing/stock/{batch}/*.csv
tables:
  - table: public.stock
    write: none
    batch_column: load_id
"""
_DDL = """
CREATE TABLE public.stock (id integer PRIMARY KEY, name text, load_id text);
CREATE INDEX ON public.stock (load_id);
"""


def open_stock(shop: Shop, *batches: str, more: str = "") -> None:
    """Have another system load batches of ten rows.

    Args:
        shop: The shop.
        batches: Their ids.
        more: What else the feed's file says.
    """
    (shop.settings.feeds / "stock.yaml").write_text(_YAML + more)
    shop.query(_DDL)
    for number, batch in enumerate(batches):
        numbers = range(number * 100, number * 100 + 10)
        folder = shop.folder / "landing" / LOADED / batch
        folder.mkdir(parents=True)
        lines = [f"{n},item {n}" for n in numbers]
        (folder / "stock.csv").write_text("\n".join(["id,name", *lines, ""]))
        for n in numbers:
            shop.query("INSERT INTO public.stock VALUES ($1, $2, $3)".replace("$1", str(n))
                       .replace("$2", f"'item {n}'").replace("$3", f"'{batch}'"))  # fmt: skip

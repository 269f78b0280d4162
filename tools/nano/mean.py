"""The weighted mean of two exported folders' weights: often better than either end of a training."""

import argparse
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=Path, required=True, help="exported folder; its other files are copied")
    parser.add_argument("--second", type=Path, required=True, help="another one of the same shape")
    parser.add_argument("--share", type=float, default=0.5, help="of the first one's weights")
    parser.add_argument("--out", type=Path, required=True)
    a = parser.parse_args()

    first, second = (load_file(folder / "model.safetensors") for folder in (a.first, a.second))
    tensors = {name: (t.float() * a.share + second[name].float() * (1 - a.share)).to(t.dtype).contiguous()
               for name, t in first.items()}
    shutil.copytree(a.first, a.out, dirs_exist_ok=True)
    save_file(tensors, a.out / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()

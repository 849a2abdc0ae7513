"""A folder of one PNG per frame as a torch data set; its worker processes import nothing else of ours."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset


class PngFolder(Dataset[Tensor]):
    """Frames float32 [3, 64, 64] in [0, 1], decoded when they are asked for."""

    def __init__(self, folder: Path):
        self.files = sorted(folder.glob("*.png"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        """Frame `index`, as torchvision's ToTensor would give it."""
        with Image.open(self.files[index]) as picture:
            return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255

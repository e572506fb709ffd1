"""Options of `retinanet evaluate`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Gt, Interval

from retinanet.config.data import DataConfig
from retinanet.config.hardware import DeviceConfig
from retinanet.config.inference import InferenceConfig, NmsConfig
from retinanet.config.loading import BatchConfig, LoadingConfig
from retinanet.config.output import ReportConfig
from retinanet.config.tile import TileConfig
from retinanet.config.validation import check_options
from retinanet.config.value_range import ValueRangeConfig

FurtherMetric = Literal["voc", "lvis", "open_images", "best_f1"]
ImageAttribute = Literal["brightness", "sharpness", "image_size"]


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Options of `retinanet evaluate MODEL`. If MODEL is a COCO results file, options of the model and of the images
    have no effect."""

    data: Path
    """Dataset to evaluate on, in any annotation format that `train` reads. For a YOLO data.yaml, the split `val`."""
    results: Path | None = None
    """File for the detections in COCO results format. Evaluating this file later gives the same metrics without the
    model."""
    confusion: bool = False
    """Also print the confusion matrix of the classes, at IoU 0.5."""
    confusion_threshold: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.5
    """Lowest score of a detection that is counted in the confusion matrix."""
    max_detections: Annotated[int, Gt(0)] | None = None
    """Greatest number of detections per image and class that AP and AR count, those with the highest scores first. A
    lower limit of the model itself is raised to this number. By default 100, as COCO defines AP; an image with more
    objects of a class then lowers the AP of a perfect model. AR1, AR10 and AR100 keep their limits."""
    metrics: tuple[FurtherMetric, ...] = ()
    """Metrics in addition to COCO's. voc: AP of Pascal VOC at IoU 0.5, every-point and 11-point. lvis: AP of LVIS, also
    of rare, common and frequent classes. open_images: AP of Open Images at IoU 0.5. best_f1: the score threshold with
    the highest F1 at IoU 0.5, for all classes and for each class, with precision and recall."""
    slices: Path | None = None
    """CSV file with attributes of the images. AP is also computed for the images of each value of an attribute, and the
    slices are sorted by AP, lowest first. The first line names the columns. A column called image, path or file_name,
    or otherwise the first column, names the image, and each other column is an attribute."""
    slice_by: tuple[ImageAttribute, ...] = ()
    """Also compute AP for quarters of the images by a measured attribute. brightness: mean grey value. sharpness:
    variance of the Laplacian. image_size: square root of width times height. brightness and sharpness read the image
    files. Classes and object sizes are slices, too, if `slices` or `slice_by` is given."""
    dataset: DataConfig = field(default_factory=DataConfig)
    files: ReportConfig = field(default_factory=ReportConfig)
    tiling: TileConfig = field(default_factory=TileConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    nms: NmsConfig = field(default_factory=NmsConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    loading: LoadingConfig = field(default_factory=LoadingConfig)
    hardware: DeviceConfig = field(default_factory=DeviceConfig)
    value_range: ValueRangeConfig = field(default_factory=ValueRangeConfig)

    def __post_init__(self) -> None:
        check_options(self)
        self.batch.require_number()

"""transformers' own tests of models, configurations and video processors, run over STT.

`TrainingTesterMixin` is left out: it knows text only ("Modality image not supported yet"); test_modeling_stt.py
overfits a batch instead. `PipelineTesterMixin` needs the Hub; test_remote_code.py runs the pipeline.
"""

import copy
import unittest
from typing import Any

import pytest
import torch
from torch import nn

from helpers.transformers_sdist import import_test_module
from modeling_stt import STTConfig, STTForVideoClassification, STTModel, STTVideoProcessor
from modeling_stt.configuration_stt import ATTENTION_ORDERS

modeling_common = import_test_module("test_modeling_common")
configuration_common = import_test_module("test_configuration_common")
video_processing_common = import_test_module("test_video_processing_common")


def numbered_test(ending: str) -> str:
    """The full name of a test that transformers has put a number into."""
    (name,) = [name for name in dir(modeling_common.ModelTesterMixin) if name.endswith(ending)]
    return name


# All that an order can break; the rest of the mixin doesn't depend on it.
TESTS_OF_EVERY_ORDER = (
    "test_attention_outputs",
    "test_batching_equivalence",
    "test_can_init_all_missing_weights",
    "test_can_set_attention_dynamically",
    "test_config",
    "test_determinism",
    numbered_test("_fp32_pad_left"),
    "test_hidden_states_output",
    "test_model_outputs_equivalence",
    "test_retain_grad_hidden_states_attentions",
    "test_save_load",
    "test_training_gradient_checkpointing",
)


class STTModelTester:
    """A tiny model and a batch, under the names that the mixin reads."""

    is_training = True
    batch_size = 3
    num_frames = 3
    num_positions = 4 * 4
    seq_length = 1 + num_frames * num_positions
    hidden_size = 32
    num_hidden_layers = 2
    num_attention_heads = 2

    def __init__(self, attention_order: str) -> None:
        self.attention_order = attention_order
        self.attn_implementation: str | None = None

    def get_config(self) -> STTConfig:
        return STTConfig(
            image_size=16,
            num_frames=self.num_frames,
            backbone_stem_width=8,
            backbone_widths=(8,),
            backbone_depths=(1,),
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=40,
            attention_order=self.attention_order,
            attn_implementation=self.attn_implementation,
            num_labels=5,
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[STTConfig, dict[str, Any]]:
        return self.get_config(), {"pixel_values": torch.rand(self.batch_size, self.num_frames, 3, 16, 16)}

    def expected_attentions(self) -> dict[str, tuple[int, ...]]:
        """Shape of each attention that the order has, by its name in the outputs."""
        batch, frames, positions, heads = (
            self.batch_size,
            self.num_frames,
            self.num_positions,
            self.num_attention_heads,
        )
        space = {"spatial_attentions": (batch, frames, heads, positions, positions)}
        space_with_class = {"spatial_attentions": (batch, frames, heads, 1 + positions, 1 + positions)}
        time = {"temporal_attentions": (batch, positions, heads, frames, frames)}
        time_with_class = {"temporal_attentions": (batch, positions, heads, 1 + frames, 1 + frames)}
        return {
            "space_time": space | time_with_class,
            "time_space": space_with_class | time,
            "space_only": space_with_class,
            "time_only": time_with_class,
            "joint": {"joint_attentions": (batch, heads, self.seq_length, self.seq_length)},
        }[self.attention_order]


class STTModelTest(modeling_common.ModelTesterMixin, unittest.TestCase):
    all_model_classes = (STTModel, STTForVideoClassification)
    attention_order = "space_time"
    # There is no vocabulary to resize.
    test_resize_embeddings = False
    # The mixin looks for a year of copyright in the configuration's file, and without one leaves this test out.
    test_can_init_all_missing_weights_before_2023 = True

    def setUp(self) -> None:
        torch.manual_seed(0)
        self.model_tester = STTModelTester(self.attention_order)

    def test_config(self) -> None:
        inputs = self.model_tester.get_config().to_diff_dict()
        inputs = {
            key: inputs[key] for key in ("attention_order", "hidden_size", "num_attention_heads") if key in inputs
        }
        configuration_common.ConfigTester(
            self, config_class=STTConfig, has_text_modality=False, **inputs
        ).run_common_tests()

    def test_attention_outputs(self) -> None:
        """Overridden: STT has no `attentions` but one attention for space and one for time, each by its name."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        names = {"spatial_attentions", "temporal_attentions", "joint_attentions"}
        for model_class in self.all_model_classes:
            model = model_class._from_config(copy.deepcopy(config), attn_implementation="eager").eval()
            without = model(**inputs)
            self.assertFalse(names & without.keys())
            by_argument = model(**inputs, output_attentions=True)
            model.config.output_attentions = True
            by_config = model(**inputs)
            for outputs in (by_argument, by_config):
                self._check_attentions(outputs)
                self.assertEqual(len(outputs), len(without) + len(self.model_tester.expected_attentions()))
            self.assertFalse(names & model(**inputs, output_attentions=False).keys())

    def _check_attentions(self, outputs: Any) -> None:
        expected = self.model_tester.expected_attentions()
        self.assertEqual({key for key in outputs if key.endswith("attentions")}, set(expected))
        for name, shape in expected.items():
            shapes = [tuple(weights.shape) for weights in outputs[name]]
            self.assertEqual(shapes, [shape] * self.model_tester.num_hidden_layers)

    def test_retain_grad_hidden_states_attentions(self) -> None:
        """Overridden for the same reason: what is handed out is what the result was computed from."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        model = STTModel._from_config(config, attn_implementation="eager")
        outputs = model(**inputs, output_hidden_states=True, output_attentions=True)
        recorded = [outputs.hidden_states[0]]
        recorded += [outputs[name][0] for name in self.model_tester.expected_attentions()]
        for tensor in recorded:
            tensor.retain_grad()
        outputs[0].flatten()[0].backward()
        for tensor in recorded:
            self.assertIsNotNone(tensor.grad)

    def test_model_outputs_equivalence(self) -> None:
        """Under eager attention: the mixin asks the default back-end for weights, and STT refuses that one."""
        self.model_tester.attn_implementation = "eager"
        super().test_model_outputs_equivalence()

    def _check_that_attentions_are_refused_under_sdpa(self) -> None:
        """Overrides the one eager/sdpa test that asks for weights: where they cannot be had, STT says so."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        for model_class in self.all_model_classes:
            model = model_class._from_config(copy.deepcopy(config), attn_implementation="sdpa")
            with self.assertRaisesRegex(ValueError, "attn_implementation='sdpa'"):
                model(**inputs, output_attentions=True)

    def test_model_get_set_embeddings(self) -> None:
        """Overridden: the mixin expects `nn.Embedding`; a video's tokens come of a convolution."""
        for model_class in self.all_model_classes:
            model = model_class(self.model_tester.get_config())
            self.assertIsInstance(model.get_input_embeddings(), nn.Conv2d)
            other = nn.Conv2d(8, 32, 1)
            model.set_input_embeddings(other)
            self.assertIs(model.get_input_embeddings(), other)
            self.assertIs(model.base_model.embeddings.projection, other)
            self.assertIsNone(model.get_output_embeddings())


setattr(
    STTModelTest,
    numbered_test("_fp32_pad_left_output_attentions"),
    STTModelTest._check_that_attentions_are_refused_under_sdpa,
)


@pytest.mark.parametrize("order", [order for order in ATTENTION_ORDERS if order != STTModelTest.attention_order])
@pytest.mark.parametrize("name", TESTS_OF_EVERY_ORDER)
def test_other_attention_orders(order: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(STTModelTest, "attention_order", order)
    STTModelTest(name).debug()


class STTVideoProcessorTester:
    """Random videos, and the shape that they are to get, under the names that the mixin reads."""

    batch_size = 4
    num_frames = 5
    num_channels = 3

    def expected_output_video_shape(self, videos: Any) -> tuple[int, ...]:
        return self.num_frames, 3, 18, 18

    def prepare_video_inputs(self, equal_resolution: bool = False, return_tensors: str = "pil") -> list[Any]:
        return video_processing_common.prepare_video_inputs(
            batch_size=self.batch_size,
            num_frames=self.num_frames,
            num_channels=self.num_channels,
            min_resolution=30,
            max_resolution=80,
            equal_resolution=equal_resolution,
            return_tensors=return_tensors,
        )


class STTVideoProcessorTest(video_processing_common.VideoProcessingTestMixin, unittest.TestCase):
    fast_video_processing_class = STTVideoProcessor
    input_name = "pixel_values"
    test_cast_dtype = True

    def setUp(self) -> None:
        super().setUp()
        self.video_processor_tester = STTVideoProcessorTester()
        # The sizes are those that the mixin reads back.
        self.video_processor_dict: dict[str, Any] = {
            "size": {"shortest_edge": 20},
            "do_center_crop": True,
            "crop_size": {"height": 18, "width": 18},
            "num_frames": 5,
            "do_normalize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
        }

    def test_video_processor_from_dict_with_kwargs(self) -> None:
        """Overridden: one number for a size means the shortest edge to the mixin, and to STT a square."""
        processor = STTVideoProcessor.from_dict(self.video_processor_dict)
        self.assertEqual(processor.size, {"shortest_edge": 20})
        self.assertEqual(processor.crop_size, {"height": 18, "width": 18})
        processor = STTVideoProcessor.from_dict(self.video_processor_dict, size=42, crop_size=84)
        self.assertEqual(processor.size, {"height": 42, "width": 42})
        self.assertEqual(processor.crop_size, {"height": 84, "width": 84})

    def test_call_sample_frames(self) -> None:
        """Overridden: where the mixin ends on a refusal of clips that are too short, STT repeats their frames."""
        processor = STTVideoProcessor(**self.video_processor_dict)
        self.video_processor_tester.num_frames = 8
        videos = self.video_processor_tester.prepare_video_inputs(return_tensors="torch")

        def count_frames(video_metadata: Any = None, **kwargs: Any) -> list[int]:
            single, batch = (None, None) if video_metadata is None else ([[video_metadata]], [[video_metadata]] * 4)
            one = processor(videos[0], return_tensors="pt", video_metadata=single, **kwargs)[self.input_name]
            many = processor(videos, return_tensors="pt", video_metadata=batch, **kwargs)[self.input_name]
            return [one.shape[1], many.shape[1]]

        processor.do_sample_frames = False
        self.assertEqual(count_frames(num_frames=3), [8, 8])
        processor.do_sample_frames = True
        self.assertEqual(count_frames(num_frames=3), [3, 3])
        self.assertEqual(count_frames(num_frames=10), [10, 10])
        metadata = {"duration": 2.0, "total_num_frames": 8, "fps": 4}
        self.assertEqual(count_frames(fps=3, video_metadata=metadata), [6, 6])
        metadata = video_processing_common.VideoMetadata(**metadata)
        self.assertEqual(count_frames(fps=3, video_metadata=metadata), [6, 6])
        with self.assertRaisesRegex(ValueError, "fps=3"):
            processor.sample_frames(metadata=video_processing_common.VideoMetadata(total_num_frames=8), fps=3)

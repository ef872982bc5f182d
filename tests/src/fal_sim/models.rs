//! The models the simulator serves: their input schemas, strictly enforced, and the shape of their outputs.
//!
//! Wrong types are refused even where the real service would coerce them, and so are keys the schema does not know
//! (real FAL ignores those; refusing them shows a gateway that forwards what it should not. `Settings` can turn it
//! off). Limits, enumerations and defaults are those of FAL's published schemas.

use serde_json::{Map, Value};

use super::errors::Failure;
use super::schema::{self, Field, Kind, nullable, optional, required};

/// What a model makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Flux: images with sizes, `timings`, `seed`, `has_nsfw_concepts`, `prompt`.
    FluxImages,
    /// Imagen: image files and a `description`.
    ImagenImages,
    /// One video file of so many seconds unless the input says otherwise.
    Video {
        /// Length in seconds when the input has no `duration`.
        default_seconds: u32,
    },
}

/// One endpoint.
#[derive(Debug)]
pub struct Model {
    /// FAL's endpoint id, for example `fal-ai/veo3`.
    pub endpoint: &'static str,
    /// Shape of the result.
    pub output: Output,
    fields: &'static [Field],
}

const FREE_TEXT: Kind = Kind::Text {
    min: 0,
    max: usize::MAX,
};
const SAFETY: Kind = Kind::OneOf(&["1", "2", "3", "4", "5", "6"]);
const JPEG_PNG: Kind = Kind::OneOf(&["jpeg", "png"]);
const ONE_TO_FOUR: Kind = Kind::Int { min: 1, max: 4 };
const FLUX_ASPECTS: Kind = Kind::OneOf(&["21:9", "16:9", "4:3", "3:2", "1:1", "2:3", "3:4", "9:16", "9:21"]);

/// Every model served.
pub static MODELS: &[Model] = &[
    Model {
        endpoint: "fal-ai/flux-pro/v1.1-ultra",
        output: Output::FluxImages,
        fields: &[
            required("prompt", FREE_TEXT),
            // The published type is "the enum or any string".
            optional("aspect_ratio", FREE_TEXT),
            optional("num_images", ONE_TO_FOUR),
            optional("output_format", JPEG_PNG),
            optional("safety_tolerance", SAFETY),
            nullable("seed", Kind::Seed),
            optional("raw", Kind::Bool),
            optional("enhance_prompt", Kind::Bool),
            optional("sync_mode", Kind::Bool),
            nullable("image_url", Kind::FileUrl),
            optional("image_prompt_strength", Kind::Number { min: 0.0, max: 1.0 }),
        ],
    },
    Model {
        endpoint: "fal-ai/flux-pro/kontext/max",
        output: Output::FluxImages,
        fields: &[
            required("prompt", FREE_TEXT),
            required("image_url", Kind::FileUrl),
            optional("aspect_ratio", FLUX_ASPECTS),
            optional("guidance_scale", Kind::Number { min: 1.0, max: 20.0 }),
            optional("num_images", ONE_TO_FOUR),
            optional("output_format", JPEG_PNG),
            optional("safety_tolerance", SAFETY),
            nullable("seed", Kind::Seed),
            optional("enhance_prompt", Kind::Bool),
            optional("sync_mode", Kind::Bool),
        ],
    },
    Model {
        endpoint: "fal-ai/flux-pro/kontext/max/text-to-image",
        output: Output::FluxImages,
        fields: &[
            required("prompt", FREE_TEXT),
            optional("aspect_ratio", FLUX_ASPECTS),
            optional("guidance_scale", Kind::Number { min: 1.0, max: 20.0 }),
            optional("num_images", ONE_TO_FOUR),
            optional("output_format", JPEG_PNG),
            optional("safety_tolerance", SAFETY),
            nullable("seed", Kind::Seed),
            optional("enhance_prompt", Kind::Bool),
            optional("sync_mode", Kind::Bool),
        ],
    },
    Model {
        endpoint: "fal-ai/imagen4/preview/ultra",
        output: Output::ImagenImages,
        fields: &[
            required("prompt", FREE_TEXT),
            optional("aspect_ratio", Kind::OneOf(&["1:1", "16:9", "9:16", "4:3", "3:4"])),
            optional("num_images", ONE_TO_FOUR),
            optional("resolution", Kind::OneOf(&["1K", "2K"])),
            optional("output_format", Kind::OneOf(&["png", "jpeg", "webp"])),
            optional("safety_tolerance", SAFETY),
            nullable("seed", Kind::Seed),
            optional("sync_mode", Kind::Bool),
        ],
    },
    Model {
        endpoint: "fal-ai/veo3",
        output: Output::Video { default_seconds: 8 },
        fields: &[
            required("prompt", Kind::Text { min: 0, max: 20000 }),
            optional("aspect_ratio", Kind::OneOf(&["16:9", "9:16"])),
            optional("duration", Kind::OneOf(&["4s", "6s", "8s"])),
            optional("resolution", Kind::OneOf(&["720p", "1080p"])),
            optional("generate_audio", Kind::Bool),
            optional("auto_fix", Kind::Bool),
            nullable("negative_prompt", FREE_TEXT),
            nullable("seed", Kind::Seed),
            optional("safety_tolerance", SAFETY),
        ],
    },
    Model {
        endpoint: "fal-ai/minimax/hailuo-02/pro/text-to-video",
        output: Output::Video { default_seconds: 6 },
        fields: &[
            required("prompt", Kind::Text { min: 1, max: 2000 }),
            optional("prompt_optimizer", Kind::Bool),
        ],
    },
    Model {
        endpoint: "fal-ai/wan-pro/text-to-video",
        output: Output::Video { default_seconds: 6 },
        fields: &[
            required("prompt", FREE_TEXT),
            nullable("seed", Kind::Seed),
            optional("enable_safety_checker", Kind::Bool),
        ],
    },
    Model {
        endpoint: "fal-ai/kling-video/v2.1/master/text-to-video",
        output: Output::Video { default_seconds: 5 },
        fields: &[
            required("prompt", Kind::Text { min: 0, max: 2500 }),
            optional("duration", Kind::OneOf(&["5", "10"])),
            optional("aspect_ratio", Kind::OneOf(&["16:9", "9:16", "1:1"])),
            optional("negative_prompt", Kind::Text { min: 0, max: 2500 }),
            optional("cfg_scale", Kind::Number { min: 0.0, max: 1.0 }),
        ],
    },
];

impl Model {
    /// The model behind an endpoint id.
    #[must_use]
    pub fn find(endpoint: &str) -> Option<&'static Self> {
        MODELS.iter().find(|model| model.endpoint == endpoint)
    }

    /// `owner/alias`, the first two segments: what status, result and cancel are addressed by.
    #[must_use]
    pub fn app(&self) -> &'static str {
        self.endpoint
            .match_indices('/')
            .nth(1)
            .map_or(self.endpoint, |(at, _)| &self.endpoint[..at])
    }

    /// Checks an input against the schema and reports every fault at once.
    ///
    /// # Errors
    /// 422 with FAL's `detail` array.
    pub fn validate(&self, input: &Map<String, Value>, reject_unknown_fields: bool) -> Result<(), Failure> {
        schema::validate(self.fields, input, reject_unknown_fields)
    }

    /// Images asked for; one video counts as one.
    #[must_use]
    pub fn asked_outputs(&self, input: &Map<String, Value>) -> u32 {
        match self.output {
            Output::Video { .. } => 1,
            _ => input
                .get("num_images")
                .and_then(Value::as_u64)
                .and_then(|count| u32::try_from(count).ok())
                .unwrap_or(1),
        }
    }

    /// Length of the video in seconds; zero for images.
    #[must_use]
    pub fn seconds(&self, input: &Map<String, Value>) -> u32 {
        let Output::Video { default_seconds } = self.output else {
            return 0;
        };
        input
            .get("duration")
            .and_then(Value::as_str)
            .and_then(|text| text.trim_end_matches('s').parse().ok())
            .unwrap_or(default_seconds)
    }

    /// What FAL charges for a delivery, in thousandths of the model's billing unit: per image, per second of video,
    /// and for wan-pro per five seconds.
    #[must_use]
    pub fn billable_milliunits(&self, input: &Map<String, Value>, delivered: u32) -> u64 {
        match self.output {
            Output::Video { .. } if self.endpoint == "fal-ai/wan-pro/text-to-video" => {
                u64::from(delivered) * u64::from(self.seconds(input)) * 1000 / 5
            }
            Output::Video { .. } => u64::from(delivered) * u64::from(self.seconds(input)) * 1000,
            _ => u64::from(delivered) * 1000,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use serde_json::json;

    use super::*;

    fn types(endpoint: &str, input: Value) -> Vec<String> {
        let model = Model::find(endpoint).unwrap();
        match model.validate(input.as_object().unwrap(), true) {
            Ok(()) => Vec::new(),
            Err(failure) => {
                assert_eq!(failure.status, 422);
                failure.body["detail"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|item| {
                        assert_eq!(item["loc"][0], "body");
                        format!(
                            "{}:{}",
                            item["loc"][1].as_str().unwrap(),
                            item["type"].as_str().unwrap()
                        )
                    })
                    .collect()
            }
        }
    }

    #[test]
    fn accepts_what_the_schema_allows() {
        let good = [
            (
                "fal-ai/flux-pro/v1.1-ultra",
                json!({"prompt": "x", "aspect_ratio": "21:9", "num_images": 4, "seed": 17454220438242315174u64, "image_prompt_strength": 0}),
            ),
            (
                "fal-ai/flux-pro/kontext/max",
                json!({"prompt": "x", "image_url": "data:image/png;base64,AA==", "guidance_scale": 3.5}),
            ),
            (
                "fal-ai/flux-pro/kontext/max/text-to-image",
                json!({"prompt": "x", "seed": null}),
            ),
            (
                "fal-ai/imagen4/preview/ultra",
                json!({"prompt": "x", "output_format": "webp"}),
            ),
            (
                "fal-ai/veo3",
                json!({"prompt": "x", "duration": "8s", "generate_audio": false}),
            ),
            ("fal-ai/minimax/hailuo-02/pro/text-to-video", json!({"prompt": "x"})),
            ("fal-ai/wan-pro/text-to-video", json!({"prompt": "x", "seed": -3})),
            (
                "fal-ai/kling-video/v2.1/master/text-to-video",
                json!({"prompt": "x", "duration": "10", "cfg_scale": 0.5}),
            ),
        ];
        assert_eq!(good.len(), MODELS.len(), "every model has a good example");
        for (endpoint, input) in good {
            assert_eq!(types(endpoint, input), Vec::<String>::new(), "{endpoint}");
        }
    }

    #[test]
    fn refuses_wrong_types_values_and_keys_all_at_once() {
        assert_eq!(
            types(
                "fal-ai/flux-pro/v1.1-ultra",
                json!({"num_images": "2", "safety_tolerance": 2, "raw": 1, "width": 512})
            ),
            [
                "prompt:missing",
                "num_images:int_type",
                "safety_tolerance:string_type",
                "raw:bool_type",
                "width:extra_forbidden"
            ]
        );
        assert_eq!(
            types("fal-ai/veo3", json!({"prompt": "x", "duration": 8})),
            ["duration:string_type"]
        );
        assert_eq!(
            types(
                "fal-ai/veo3",
                json!({"prompt": "x", "duration": "5s", "aspect_ratio": "1:1"})
            ),
            ["aspect_ratio:one_of", "duration:one_of"]
        );
        assert_eq!(
            types(
                "fal-ai/kling-video/v2.1/master/text-to-video",
                json!({"prompt": "x", "cfg_scale": 1.5, "duration": "5s"})
            ),
            ["duration:one_of", "cfg_scale:less_than_equal"]
        );
        assert_eq!(
            types("fal-ai/minimax/hailuo-02/pro/text-to-video", json!({"prompt": ""})),
            ["prompt:sequence_too_short"]
        );
        assert_eq!(
            types(
                "fal-ai/minimax/hailuo-02/pro/text-to-video",
                json!({"prompt": "x".repeat(2001)})
            ),
            ["prompt:sequence_too_long"]
        );
        assert_eq!(
            types("fal-ai/imagen4/preview/ultra", json!({"prompt": "x", "num_images": 0})),
            ["num_images:greater_than_equal"]
        );
        assert_eq!(
            types(
                "fal-ai/flux-pro/kontext/max",
                json!({"prompt": "x", "image_url": "ftp://a"})
            ),
            ["image_url:file_download_error"]
        );
    }

    #[test]
    fn bills_images_seconds_and_units_of_five_seconds() {
        let units = |endpoint: &str, input: Value, delivered| {
            Model::find(endpoint)
                .unwrap()
                .billable_milliunits(input.as_object().unwrap(), delivered)
        };
        assert_eq!(units("fal-ai/flux-pro/v1.1-ultra", json!({}), 3), 3000);
        assert_eq!(units("fal-ai/veo3", json!({"duration": "4s"}), 1), 4000);
        assert_eq!(units("fal-ai/wan-pro/text-to-video", json!({}), 1), 1200);
    }
}

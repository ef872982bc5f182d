//! An order for a picture or a clip: from a job's parameters to a `sandbox://` URL, and from the URL to the bytes.

use aws_lc_rs::digest::{SHA256, digest};
use thiserror::Error;
use url::Url;
use velro_plugin::{Job, Value};

use super::art::{self, ArtError, Canvas};

/// Longest prompt in a URL, in characters. Longer ones are cut and told apart by their hash.
const PROMPT_CHARS: usize = 400;

/// What is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    Image,
    Video,
}

impl Subject {
    pub(super) fn of_model(model: &str) -> Option<Self> {
        match model.strip_prefix("sandbox/").unwrap_or(model) {
            "image" => Some(Subject::Image),
            "video" => Some(Subject::Video),
            _ => None,
        }
    }

    pub(super) fn kind(self) -> &'static str {
        match self {
            Subject::Image => "image",
            Subject::Video => "video",
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Subject::Image => "image/png",
            Subject::Video => "video/mp4",
        }
    }
}

/// Everything a picture depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) subject: Subject,
    pub(super) prompt: String,
    pub(super) seed: u64,
    pub(super) canvas: Canvas,
    pub(super) duration_ms: u32,
}

/// Why a `sandbox://` URL could not be drawn.
#[derive(Debug, Error)]
pub enum DrawError {
    /// Not one of ours.
    #[error("the sandbox URL has no valid `{0}`")]
    Url(&'static str),
    /// The artist refused.
    #[error("the artist cannot draw this: {0}")]
    Art(#[from] ArtError),
}

impl Order {
    /// Reads a job's parameters; what is missing or unknown gets the default. Without a seed the job's id gives one.
    pub(super) fn of_job(job: &Job<'_>, subject: Subject) -> Self {
        let size = job.params.str(match subject {
            Subject::Image => "image_size",
            Subject::Video => "aspect_ratio",
        });
        let duration_ms = match job.params.map().get("duration") {
            Some(Value::Number(seconds)) => seconds.as_f64().map(|s| (s.clamp(1.0, 10.0) * 1_000.0) as u32),
            Some(Value::String(text)) => text
                .trim_end_matches('s')
                .parse::<u32>()
                .ok()
                .map(|s| s.clamp(1, 10) * 1_000),
            _ => None,
        };
        Order {
            subject,
            prompt: shortened(job.params.str("prompt").unwrap_or_default()),
            seed: job.params.u64("seed").unwrap_or_else(|| hash(job.id.as_bytes()) >> 33),
            canvas: canvas(subject, size),
            duration_ms: duration_ms.unwrap_or(5_000),
        }
    }

    /// The URL of the `index`-th output.
    pub(super) fn url(&self, index: u32) -> String {
        let mut url = format!(
            "sandbox://draw/{}?seed={}&index={index}&width={}&height={}",
            self.subject.kind(),
            self.seed,
            self.canvas.width,
            self.canvas.height
        );
        if self.subject == Subject::Video {
            url.push_str(&format!("&duration_ms={}", self.duration_ms));
        }
        url.push_str("&prompt=");
        url.push_str(&velro_plugin::escape(&self.prompt));
        url
    }
}

/// Draws what a `sandbox://` URL describes. Computes for tens of milliseconds to seconds: call it where blocking is
/// allowed.
pub fn draw(url: &str) -> Result<Vec<u8>, DrawError> {
    let url = Url::parse(url).map_err(|_| DrawError::Url("form"))?;
    let text = |name: &'static str| {
        let found = url.query_pairs().find(|(key, _)| key == name);
        found.map(|(_, value)| value.into_owned()).ok_or(DrawError::Url(name))
    };
    let number = |name: &'static str| text(name)?.parse::<u32>().map_err(|_| DrawError::Url(name));
    let prompt = text("prompt")?;
    let seed = text("seed")?.parse::<u64>().map_err(|_| DrawError::Url("seed"))?;
    let canvas = Canvas {
        width: number("width")?,
        height: number("height")?,
    };
    match (url.host_str(), url.path()) {
        (Some("draw"), "/image") => Ok(art::draw_png(&prompt, seed, number("index")?, canvas)?),
        (Some("draw"), "/video") => Ok(art::draw_clip(&prompt, seed, canvas, number("duration_ms")?)?),
        _ => Err(DrawError::Url("path")),
    }
}

fn canvas(subject: Subject, name: Option<&str>) -> Canvas {
    let (width, height) = match (subject, name.unwrap_or_default()) {
        (Subject::Image, "square") => (512, 512),
        (Subject::Image, "portrait_4_3") => (768, 1024),
        (Subject::Image, "portrait_16_9") => (576, 1024),
        (Subject::Image, "landscape_4_3") => (1024, 768),
        (Subject::Image, "landscape_16_9") => (1024, 576),
        (Subject::Image, _) => (1024, 1024),
        (Subject::Video, "9:16") => (270, 480),
        (Subject::Video, "1:1") => (360, 360),
        (Subject::Video, _) => (480, 270),
    };
    Canvas { width, height }
}

fn shortened(prompt: &str) -> String {
    if prompt.chars().count() <= PROMPT_CHARS {
        return prompt.to_owned();
    }
    let cut: String = prompt.chars().take(PROMPT_CHARS).collect();
    format!("{cut} #{:08x}", hash(prompt.as_bytes()) as u32)
}

fn hash(bytes: &[u8]) -> u64 {
    let digest = digest(&SHA256, bytes);
    digest.as_ref().iter().take(8).fold(0, |n, b| n << 8 | u64::from(*b))
}

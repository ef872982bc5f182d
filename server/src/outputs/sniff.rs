//! What a file is, by its first bytes. A list of what is kept: everything else is refused, HTML and SVG above all,
//! which would run in the reader's browser under our name.

/// A format we keep.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) content_type: &'static str,
    pub(super) extension: &'static str,
}

const fn format(content_type: &'static str, extension: &'static str) -> Format {
    Format {
        content_type,
        extension,
    }
}

const FORMATS: [Format; 14] = [
    format("image/png", "png"),
    format("image/jpeg", "jpg"),
    format("image/webp", "webp"),
    format("image/gif", "gif"),
    format("image/avif", "avif"),
    format("video/mp4", "mp4"),
    format("video/webm", "webm"),
    format("video/quicktime", "mov"),
    format("audio/mpeg", "mp3"),
    format("audio/wav", "wav"),
    format("audio/ogg", "ogg"),
    format("audio/flac", "flac"),
    format("audio/aac", "aac"),
    format("audio/mp4", "m4a"),
];

impl Format {
    /// The format of a file that begins with `head`.
    pub(super) fn of(head: &[u8]) -> Option<&'static Format> {
        let found = infer::get(head)?.mime_type();
        let name = match found {
            "video/x-m4v" => "video/mp4",
            "audio/m4a" => "audio/mp4",
            "audio/x-wav" => "audio/wav",
            "audio/x-flac" => "audio/flac",
            "audio/opus" => "audio/ogg",
            other => other,
        };
        FORMATS.iter().find(|f| f.content_type == name)
    }

    pub(super) fn by_extension(extension: &str) -> Option<&'static Format> {
        FORMATS.iter().find(|f| f.extension == extension)
    }

    /// `image`, `video` or `audio`.
    pub(super) fn kind(&self) -> &'static str {
        self.content_type.split_once('/').map_or("", |(kind, _)| kind)
    }

    /// True for what every provider accepts as a reference image.
    pub(super) fn is_reference(&self) -> bool {
        matches!(self.extension, "png" | "jpg" | "webp" | "gif")
    }
}

//! Names that the contract's listings show, computed from a model's id.

/// `GET /generations/models/supported`: the last path segment, title-cased (`Ultra`, `Text To Video`).
pub fn short_name(id: &str) -> String {
    title_case(id.rsplit('/').next().unwrap_or(id))
}

/// `GET /models`: the id without its first segment, title-cased (`Flux Pro/V1.1 Ultra`).
pub fn long_name(id: &str) -> String {
    title_case(id.split_once('/').map_or(id, |(_, rest)| rest))
}

/// Every letter that does not follow a letter in upper case, the others in lower case; dashes and underscores become
/// spaces.
fn title_case(text: &str) -> String {
    let mut after_letter = false;
    text.chars()
        .map(|c| {
            let cased = match c {
                '-' | '_' => ' ',
                c if after_letter => c.to_ascii_lowercase(),
                c => c.to_ascii_uppercase(),
            };
            after_letter = c.is_alphabetic();
            cased
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_contract() {
        for (id, short, long) in [
            ("fal-ai/flux-pro/v1.1-ultra", "V1.1 Ultra", "Flux Pro/V1.1 Ultra"),
            ("fal-ai/flux-pro/kontext/max", "Max", "Flux Pro/Kontext/Max"),
            ("fal-ai/imagen4/preview/ultra", "Ultra", "Imagen4/Preview/Ultra"),
            ("fal-ai/veo3", "Veo3", "Veo3"),
            (
                "fal-ai/minimax/hailuo-02/pro/text-to-video",
                "Text To Video",
                "Minimax/Hailuo 02/Pro/Text To Video",
            ),
            (
                "fal-ai/kling-video/v2.1/master/text-to-video",
                "Text To Video",
                "Kling Video/V2.1/Master/Text To Video",
            ),
            ("fal-ai/wan-pro/text-to-video", "Text To Video", "Wan Pro/Text To Video"),
            ("sandbox/image", "Image", "Image"),
            ("solo", "Solo", "Solo"),
        ] {
            assert_eq!(short_name(id), short);
            assert_eq!(long_name(id), long);
        }
    }
}

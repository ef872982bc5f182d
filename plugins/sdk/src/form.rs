//! Multipart forms, and the `data:` URLs whose bytes go into them.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::{HttpRequest, escape};

/// A `multipart/form-data` body: texts and files, in the order they are added.
#[derive(Debug, Default)]
pub struct Form {
    parts: Vec<(String, Vec<u8>)>,
}

impl Form {
    /// An empty form.
    pub fn new() -> Self {
        Form::default()
    }

    /// Adds a text field.
    #[must_use]
    pub fn text(mut self, name: &str, text: &str) -> Self {
        self.parts.push((format!("name=\"{}\"", quoted(name)), text.into()));
        self
    }

    /// Adds a file.
    #[must_use]
    pub fn file(mut self, name: &str, file_name: &str, data: DataUrl) -> Self {
        let (name, file_name) = (quoted(name), quoted(file_name));
        let head = format!(
            "name=\"{name}\"; filename=\"{file_name}\"\r\nContent-Type: {}",
            data.content_type
        );
        self.parts.push((head, data.bytes));
        self
    }

    /// Makes it the body of a request. `seed` decides the boundary, the same one every time; take the job's id.
    pub fn body_of(self, request: HttpRequest, seed: &str) -> HttpRequest {
        let boundary = self.boundary(seed);
        let mut request = request.header("content-type", format!("multipart/form-data; boundary={boundary}"));
        for (head, content) in &self.parts {
            let head = format!("--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n");
            request.body.extend_from_slice(head.as_bytes());
            request.body.extend_from_slice(content);
            request.body.extend_from_slice(b"\r\n");
        }
        request.body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        request
    }

    /// A text that is in none of the parts. Whoever knows the seed can put it into a prompt, but not all that may follow.
    fn boundary(&self, seed: &str) -> String {
        let seed: String = seed.chars().filter(char::is_ascii_alphanumeric).take(40).collect();
        let mut boundary = format!("velro-{seed}");
        for n in 0u32.. {
            let is_in = |content: &[u8]| content.windows(boundary.len()).any(|w| w == boundary.as_bytes());
            if !self.parts.iter().any(|(_, content)| is_in(content)) {
                break;
            }
            boundary = format!("velro-{seed}-{n}");
        }
        boundary
    }
}

/// A name for a header of a part.
fn quoted(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.[]".contains(c);
    match name.chars().all(plain) {
        true => name.to_owned(),
        false => escape(name),
    }
}

/// The content of a `data:` URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataUrl {
    /// `image/png` and the like.
    pub content_type: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl DataUrl {
    /// True for a text that begins like one.
    pub fn is(text: &str) -> bool {
        text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"))
    }

    /// Reads `data:image/png;base64,...`; `None` for anything else.
    pub fn parse(text: &str) -> Option<DataUrl> {
        const LENIENT: GeneralPurpose = GeneralPurpose::new(
            &STANDARD,
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
        );
        let (head, data) = text.get(5..).filter(|_| DataUrl::is(text))?.split_once(',')?;
        let content_type = head.strip_suffix(";base64")?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"/.+-".contains(&b);
        if content_type.is_empty() || !content_type.bytes().all(plain) {
            return None;
        }
        Some(DataUrl {
            content_type: content_type.to_ascii_lowercase(),
            bytes: LENIENT.decode(data.trim()).ok()?,
        })
    }

    /// `png` of `image/png`, for a file's name.
    pub fn extension(&self) -> &str {
        self.content_type.rsplit('/').next().unwrap_or_default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_written_as_the_rfc_says() {
        let picture = DataUrl::parse("DATA:image/PNG;base64,aGk").unwrap();
        assert_eq!((picture.extension(), &picture.bytes[..]), ("png", &b"hi"[..]));
        let form = Form::new().text("a\"b", "1").file("image[]", "x.png", picture);
        let request = form.body_of(HttpRequest::submit("https://a.example"), "0-1");
        assert_eq!(request.headers[0].1, "multipart/form-data; boundary=velro-01");
        let text = String::from_utf8(request.body).unwrap();
        assert_eq!(
            text,
            "--velro-01\r\nContent-Disposition: form-data; name=\"a%22b\"\r\n\r\n1\r\n\
             --velro-01\r\nContent-Disposition: form-data; name=\"image[]\"; filename=\"x.png\"\r\n\
             Content-Type: image/png\r\n\r\nhi\r\n--velro-01--\r\n"
        );
    }

    #[test]
    fn a_boundary_is_in_no_part() {
        let form = Form::new().text("prompt", "velro-1 and velro-1-0");
        assert_eq!(form.boundary("1"), "velro-1-1");
        assert_eq!(form.boundary("2"), "velro-2");
    }

    #[test]
    fn other_texts_are_no_data_urls() {
        for text in [
            "",
            "data:",
            "data:image/png,hi",
            "data:;base64,aGk=",
            "data:a b;base64,",
            "data:x/y;base64,!",
            "https://a",
        ] {
            assert_eq!(DataUrl::parse(text), None, "{text}");
        }
    }
}

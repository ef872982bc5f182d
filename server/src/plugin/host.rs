//! What the host offers to libraries: looking things up in JSON, for languages without a parser at hand.

#![allow(unsafe_code)]

use ::velro_plugin::abi::{VELRO_ABI_MINOR, velro_host, velro_str};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::{CStr, c_char};

/// The host's side of the boundary, as every library gets it.
pub(super) static HOST: velro_host = velro_host {
    struct_size: size_of::<velro_host>() as u32,
    abi_minor: VELRO_ABI_MINOR,
    version: velro_str::of(concat!("velro ", env!("CARGO_PKG_VERSION")).as_bytes()),
    json_raw: Some(json_raw),
    json_text: Some(json_text),
};

/// The text of a value behind a JSON pointer (RFC 6901); `Err` when the document is not JSON.
fn look_up<'d>(document: &'d [u8], pointer: &str) -> Result<Option<&'d str>, serde_json::Error> {
    let mut value: &'d RawValue = serde_json::from_slice(document)?;
    if pointer.is_empty() {
        return Ok(Some(value.get()));
    }
    let Some(path) = pointer.strip_prefix('/') else {
        return Ok(None);
    };
    for token in path.split('/') {
        let token = token.replace("~1", "/").replace("~0", "~");
        let found = match value.get().as_bytes().first() {
            Some(b'{') => {
                let map: HashMap<Cow<'d, str>, &'d RawValue> = serde_json::from_str(value.get())?;
                map.get(token.as_str()).copied()
            }
            Some(b'[') => {
                let list: Vec<&'d RawValue> = serde_json::from_str(value.get())?;
                token.parse::<usize>().ok().and_then(|index| list.get(index).copied())
            }
            _ => None,
        };
        match found {
            Some(next) => value = next,
            None => return Ok(None),
        }
    }
    Ok(Some(value.get()))
}

/// # Safety
/// As the header says: `doc` names readable bytes, `pointer` a text that ends with NUL.
unsafe fn found<'d>(doc: velro_str, pointer: *const c_char) -> Result<Option<&'d str>, ()> {
    if pointer.is_null() {
        return Err(());
    }
    // SAFETY: the caller's promise.
    let (doc, pointer) = unsafe { (doc.bytes().unwrap_or_default(), CStr::from_ptr(pointer)) };
    look_up(doc, pointer.to_str().map_err(|_| ())?).map_err(|_| ())
}

unsafe extern "C" fn json_raw(doc: velro_str, pointer: *const c_char, value: *mut velro_str) -> i32 {
    // SAFETY: the library promises what the header asks for.
    match unsafe { found(doc, pointer) } {
        Ok(Some(text)) => {
            if !value.is_null() {
                // SAFETY: the library passes a place for one `velro_str`.
                unsafe { value.write(velro_str::of(text.as_bytes())) };
            }
            1
        }
        Ok(None) => 0,
        Err(()) => -1,
    }
}

unsafe extern "C" fn json_text(doc: velro_str, pointer: *const c_char, buf: *mut u8, cap: usize) -> isize {
    // SAFETY: the library promises what the header asks for.
    let Ok(Some(raw)) = (unsafe { found(doc, pointer) }) else {
        return -1;
    };
    let text = match raw.starts_with('"') {
        true => serde_json::from_str::<String>(raw).map_or(Cow::Borrowed(raw), Cow::Owned),
        false => Cow::Borrowed(raw),
    };
    let copied = text.len().min(cap);
    if !buf.is_null() && copied > 0 {
        // SAFETY: the library passes `cap` writable bytes, and no more are written.
        unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), buf, copied) };
    }
    isize::try_from(text.len()).unwrap_or(isize::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const DOC: &[u8] = br#" { "a/b": [1, {"x": "p\u00e4\"q"}], "m~n": null, "t": "text" } "#;

    #[test]
    fn pointers_find_what_rfc_6901_says() {
        let get = |pointer| look_up(DOC, pointer).unwrap();
        assert_eq!(get("/a~1b/0"), Some("1"));
        assert_eq!(get("/a~1b/1/x"), Some(r#""p\u00e4\"q""#));
        assert_eq!(get("/m~0n"), Some("null"));
        assert_eq!(get("/a~1b/7"), None);
        assert_eq!(get("/t/x"), None);
        assert_eq!(get("t"), None);
        assert_eq!(get(""), Some(std::str::from_utf8(DOC).unwrap().trim()));
        assert!(look_up(b"{not json", "/a").is_err());
    }

    #[test]
    fn a_text_is_decoded_cut_and_measured() {
        let mut buf = [0u8; 4];
        // SAFETY: the document, the pointer and the buffer are valid.
        let (long, absent, raw) = unsafe {
            let long = json_text(velro_str::of(DOC), c"/a~1b/1/x".as_ptr(), buf.as_mut_ptr(), buf.len());
            let absent = json_text(velro_str::of(DOC), c"/no".as_ptr(), buf.as_mut_ptr(), 0);
            let mut value = velro_str::ABSENT;
            assert_eq!(json_raw(velro_str::of(DOC), c"/t".as_ptr(), &raw mut value), 1);
            assert_eq!(json_raw(velro_str::of(DOC), c"/no".as_ptr(), &raw mut value), 0);
            assert_eq!(json_raw(velro_str::of(b"x"), c"/t".as_ptr(), &raw mut value), -1);
            (long, absent, value.bytes().unwrap())
        };
        assert_eq!((long, &buf), (5, "pä\"".as_bytes().first_chunk::<4>().unwrap()));
        assert_eq!((absent, raw), (-1, &br#""text""#[..]));
    }
}

//! The little XML that S3 speaks: written as text, read for the elements that are asked for.

use bytes::Bytes;
use http::Response;
use http_body_util::Full;

pub fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\r' => escaped.push_str("&#13;"),
            c => escaped.push(c),
        }
    }
    escaped
}

fn unescaped(text: &str) -> String {
    let mut rest = text;
    let mut plain = String::with_capacity(text.len());
    while let Some(at) = rest.find('&') {
        plain.push_str(&rest[..at]);
        let (entity, after) = rest[at + 1..].split_once(';').unwrap_or((&rest[at + 1..], ""));
        let number = |text: &str| match text.strip_prefix('x') {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        };
        plain.extend(match entity {
            "amp" => Some('&'),
            "lt" => Some('<'),
            "gt" => Some('>'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            other => other.strip_prefix('#').and_then(number).and_then(char::from_u32),
        });
        rest = after;
    }
    plain.push_str(rest);
    plain
}

/// `content` is XML already.
pub fn element(name: &str, content: &str) -> String {
    format!("<{name}>{content}</{name}>")
}

/// What stands in each element of that name, as XML.
pub fn each<'x>(xml: &'x str, name: &str) -> Vec<&'x str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    xml.split(&open).skip(1).filter_map(|rest| rest.split(&close).next()).collect()
}

/// The text of the first element of that name.
pub fn text(xml: &str, name: &str) -> Option<String> {
    each(xml, name).first().map(|text| unescaped(text.trim()))
}

pub fn response(content: &str) -> Response<Full<Bytes>> {
    let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{content}");
    Response::builder().header("content-type", "application/xml").body(Full::new(Bytes::from(body))).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_survives_both_ways() {
        let wild = "a<b>&\"c\"\r'é'";
        assert_eq!(text(&element("Key", &escaped(wild)), "Key").unwrap(), wild);
        assert_eq!(each("<P><N>1</N></P><P><N>2</N></P>", "P"), ["<N>1</N>", "<N>2</N>"]);
        assert_eq!(unescaped("&#x41;&#66;&nothing;"), "AB");
    }
}

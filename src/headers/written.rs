//! Fields that come one by one, without a head of their own: they are written down as the lines of HTTP/1.1 that they
//! would have been, so that those that go on to a server of HTTP/1.1 are passed with one copy, as if they had come so.

use bytes::BytesMut;

use super::places::{LONGEST_NAME, Span};
use super::{Field, Headers, Marks, Part};

const COOKIE: &[u8] = b"cookie";

/// A head that is being written.
pub struct Written {
    head: BytesMut,
    fields: Vec<Field>,
    marks: Marks,
    crumbs: Crumbs,
}

/// The cookies that have come. They may come in pieces, of which one field is to be made (RFC 9113 section 8.2.3).
#[derive(Clone, Copy)]
enum Crumbs {
    None,
    /// One field, with this number.
    One(usize),
    /// Several fields: others came between them.
    Scattered,
}

impl Written {
    pub fn with_room_for(bytes: usize, fields: usize) -> Written {
        let (head, fields) = (BytesMut::with_capacity(bytes), Vec::with_capacity(fields));
        Written { head, fields, marks: Marks::default(), crumbs: Crumbs::None }
    }

    /// Fields so far.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// A part of the head that is no field.
    pub fn part(&mut self, part: &[u8]) -> Span {
        let from = self.head.len();
        self.head.extend_from_slice(part);
        Span::new(from, part.len())
    }

    /// The next field, which must be valid, its name in lower case. `None`: the name is too long.
    pub fn field(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        if name.len() > LONGEST_NAME {
            return None;
        }
        self.head.reserve(name.len().saturating_add(value.len()).saturating_add(4));
        self.marks.note(name);
        let name = self.part(name);
        self.head.extend_from_slice(b": ");
        let value = self.part(value);
        self.head.extend_from_slice(b"\r\n");
        self.fields.push(Field { name: Part::Came(name), value: Part::Came(value) });
        Some(())
    }

    /// The next piece of the cookie.
    pub fn crumb(&mut self, value: &[u8]) {
        if let Crumbs::One(number) = self.crumbs
            && number.saturating_add(1) == self.fields.len()
            && let Some(Field { value: Part::Came(before), .. }) = self.fields.get_mut(number)
        {
            // Over the end of its line.
            self.head.truncate(before.end());
            self.head.extend_from_slice(b"; ");
            self.head.extend_from_slice(value);
            let start = before.end().saturating_sub(before.length());
            *before = Span::new(start, self.head.len().saturating_sub(start));
            self.head.extend_from_slice(b"\r\n");
            return;
        }
        self.crumbs = match self.crumbs {
            Crumbs::None => Crumbs::One(self.fields.len()),
            Crumbs::One(_) | Crumbs::Scattered => Crumbs::Scattered,
        };
        // The name is not too long.
        let _ = self.field(COOKIE, value);
    }

    pub fn finish(mut self) -> Headers {
        match self.crumbs {
            Crumbs::None | Crumbs::One(_) => {}
            Crumbs::Scattered => self.gather_crumbs(),
        }
        Headers { head: self.head.freeze(), fields: self.fields, marks: self.marks }
    }

    /// One field in the place of the first, with all of them.
    fn gather_crumbs(&mut self) {
        let Written { head, fields, .. } = self;
        let name = Span::new(head.len(), COOKIE.len());
        head.extend_from_slice(b"cookie: ");
        let from = head.len();
        let mut gathered = false;
        let mut joined = Vec::new();
        fields.retain_mut(|field| {
            if !field.is_named(head, COOKIE) {
                return true;
            }
            if let Part::Came(value) = &field.value {
                if gathered {
                    joined.extend_from_slice(b"; ");
                }
                joined.extend_from_slice(value.of(head));
            }
            field.name = Part::Came(name);
            !std::mem::replace(&mut gathered, true)
        });
        head.extend_from_slice(&joined);
        head.extend_from_slice(b"\r\n");
        let all = Span::new(from, joined.len());
        for field in
            fields.iter_mut().filter(|field| matches!(&field.name, Part::Came(span) if span.end() == name.end()))
        {
            field.value = Part::Came(all);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(headers: &Headers) -> String {
        let mut out = BytesMut::new();
        headers.write_lines(&mut out, |_| true);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn what_is_written_is_what_would_have_come() {
        let mut written = Written::with_room_for(0, 0);
        let path = written.part(b"/path");
        written.field(b"accept", b"*/*").unwrap();
        written.field(b"x-empty", b"").unwrap();
        written.field(b"accept", b"text/html").unwrap();
        assert!(written.field(&[b'x'; LONGEST_NAME + 1], b"").is_none());
        let headers = written.finish();
        assert_eq!(headers.of_head(path), "/path");
        assert_eq!(lines(&headers), "accept: */*\r\nx-empty: \r\naccept: text/html\r\n");
        assert_eq!(headers.get("x-empty").unwrap(), "");
        assert_eq!(headers.get_all("accept").count(), 2);
    }

    #[test]
    fn crumbs_become_one_cookie() {
        for (fields, expected) in [
            (&["cookie: a"][..], "cookie: a\r\n"),
            (&["cookie: a", "cookie: b", "cookie: c"], "cookie: a; b; c\r\n"),
            (&["cookie: a", "cookie: b", "x: 1"], "cookie: a; b\r\nx: 1\r\n"),
            (&["x: 1", "cookie: a", "cookie: b", "y: 2", "cookie: c"], "x: 1\r\ncookie: a; b; c\r\ny: 2\r\n"),
            (&["cookie: a", "y: 2", "cookie: b", "cookie: c", "z: 3"], "cookie: a; b; c\r\ny: 2\r\nz: 3\r\n"),
            (&["cookie: ", "cookie: \u{ff}"], "cookie: ; \u{ff}\r\n"),
        ] {
            let mut written = Written::with_room_for(0, 0);
            for field in fields {
                let (name, value) = field.split_once(": ").unwrap();
                match name {
                    "cookie" => written.crumb(value.as_bytes()),
                    name => written.field(name.as_bytes(), value.as_bytes()).unwrap(),
                }
            }
            let headers = written.finish();
            assert_eq!(lines(&headers), expected, "{fields:?}");
            assert!(headers.get_all("cookie").count() == 1);
        }
    }
}

//! The tables that fields are indexed in (RFC 7541 section 2.3): the static one, and what a connection has added.

use std::collections::VecDeque;

use super::decode::Checked;

/// RFC 7541 appendix A; the first has the index 1.
#[rustfmt::skip]
pub(super) const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""), ("cache-control", ""),
    ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""), ("date", ""), ("etag", ""),
    ("expect", ""), ("expires", ""), ("from", ""), ("host", ""), ("if-match", ""), ("if-modified-since", ""),
    ("if-none-match", ""), ("if-range", ""), ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""),
    ("location", ""), ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""), ("via", ""),
    ("www-authenticate", ""),
];

/// What an entry takes beside its name and its value (RFC 7541 section 4.1).
pub(super) const OVERHEAD: usize = 32;

/// The dynamic table: what came last is first.
#[derive(Debug)]
pub(super) struct Table {
    entries: VecDeque<Entry>,
    size: usize,
    most: usize,
}

#[derive(Debug)]
pub(super) struct Entry {
    /// The name, and behind it the value.
    text: Box<[u8]>,
    name: usize,
    checked: Checked,
}

impl Entry {
    pub(super) fn new(name: &[u8], value: &[u8], checked: Checked) -> Entry {
        Entry { text: [name, value].concat().into(), name: name.len(), checked }
    }

    fn size(&self) -> usize {
        self.text.len().saturating_add(OVERHEAD)
    }
}

/// A field of either table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Indexed<'t> {
    pub(super) name: &'t [u8],
    pub(super) value: &'t [u8],
    pub(super) checked: Checked,
}

impl Table {
    pub(super) fn new(most: usize) -> Table {
        Table { entries: VecDeque::new(), size: 0, most }
    }

    /// The field with this index, over both tables.
    pub(super) fn get(&self, index: usize) -> Option<Indexed<'_>> {
        let index = index.checked_sub(1)?;
        if let Some((name, value)) = STATIC.get(index) {
            return Some(Indexed { name: name.as_bytes(), value: value.as_bytes(), checked: Checked::Field });
        }
        let entry = self.entries.get(index.checked_sub(STATIC.len())?)?;
        let (name, value) = entry.text.split_at_checked(entry.name)?;
        Some(Indexed { name, value, checked: entry.checked })
    }

    /// Adds a field, and gives up the oldest that it leaves no room for. One that is larger than the table empties it
    /// (RFC 7541 section 4.4).
    pub(super) fn add(&mut self, entry: Entry) {
        let size = entry.size();
        self.shrink(self.most.saturating_sub(size));
        if size <= self.most {
            self.size = self.size.saturating_add(size);
            self.entries.push_front(entry);
        }
    }

    /// From now on it holds so much.
    pub(super) fn resize(&mut self, most: usize) {
        self.most = most;
        self.shrink(most);
    }

    fn shrink(&mut self, most: usize) {
        while self.size > most {
            let Some(entry) = self.entries.pop_back() else { return };
            self.size = self.size.saturating_sub(entry.size());
        }
    }

    #[cfg(test)]
    pub(super) fn shown(&self) -> (usize, Vec<String>) {
        let show = |entry: &Entry| {
            let (name, value) = entry.text.split_at(entry.name);
            format!("{}: {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
        };
        (self.size, self.entries.iter().map(show).collect())
    }
}

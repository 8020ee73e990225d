//! Windows (RFC 9113 section 5.2): how much may be sent, and how much has been granted.

/// The largest window.
pub const LARGEST: u32 = i32::MAX.cast_unsigned();

/// What a window is until something else is said (section 6.9.2).
pub const INITIAL: u32 = 65_535;

/// A window grew beyond [`LARGEST`]: a `FLOW_CONTROL_ERROR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow;

/// What may be sent. Less than nothing once a client has made the windows of all streams smaller (section 6.9.2).
#[derive(Clone, Copy, Debug)]
pub struct Sending(i32);

impl Sending {
    /// `size` is at most [`LARGEST`].
    pub fn new(size: u32) -> Sending {
        Sending(i32::try_from(size).unwrap_or(i32::MAX))
    }

    pub fn room(self) -> usize {
        usize::try_from(self.0).unwrap_or_default()
    }

    /// So much was sent, at most what there was room for.
    pub fn sent(&mut self, bytes: usize) {
        self.0 = self.0.saturating_sub(i32::try_from(bytes).unwrap_or(i32::MAX));
    }

    /// # Errors
    /// Past [`LARGEST`] bytes.
    pub fn grow(&mut self, bytes: u32) -> Result<(), Overflow> {
        let grown = i64::from(self.0).saturating_add(i64::from(bytes));
        self.0 = i32::try_from(grown).map_err(|_| Overflow)?;
        Ok(())
    }

    /// The size that streams begin with is another one now.
    ///
    /// # Errors
    /// Past [`LARGEST`] bytes.
    pub fn resize(&mut self, before: u32, now: u32) -> Result<(), Overflow> {
        let resized = i64::from(self.0).saturating_add(i64::from(now)).saturating_sub(i64::from(before));
        self.0 = i32::try_from(resized.max(i64::from(i32::MIN))).map_err(|_| Overflow)?;
        Ok(())
    }
}

/// The client sent more than it was granted: a `FLOW_CONTROL_ERROR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overrun;

/// What a client may send.
#[derive(Clone, Copy, Debug)]
pub struct Granted {
    size: u32,
    left: u32,
    /// Bytes that were read and have not been granted again.
    owed: u32,
}

impl Granted {
    pub fn new(size: u32) -> Granted {
        Granted { size, left: size, owed: 0 }
    }

    /// # Errors
    /// It was not granted so much.
    pub fn came(&mut self, bytes: u32) -> Result<(), Overrun> {
        self.left = self.left.checked_sub(bytes).ok_or(Overrun)?;
        Ok(())
    }

    /// So much of what came is not held any more. What is now to be granted again, once it is half of the window.
    pub fn read(&mut self, bytes: u32) -> Option<u32> {
        self.owed = self.owed.saturating_add(bytes);
        if self.owed < self.size / 2 {
            return None;
        }
        let granted = std::mem::take(&mut self.owed);
        self.left = self.left.saturating_add(granted);
        Some(granted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_grows_to_its_bound_and_no_further() {
        let mut window = Sending::new(INITIAL);
        window.sent(65_000);
        assert_eq!(window.room(), 535);
        window.grow(LARGEST - 535).unwrap();
        assert_eq!(window.grow(1), Err(Overflow));
        assert_eq!(window.room(), LARGEST as usize);
    }

    #[test]
    fn a_window_may_become_less_than_nothing() {
        let mut window = Sending::new(INITIAL);
        window.sent(60_000);
        window.resize(INITIAL, 10).unwrap();
        assert_eq!(window.room(), 0);
        window.grow(60_000).unwrap();
        assert_eq!(window.room(), 10);
        window.grow(LARGEST - 100).unwrap();
        assert_eq!(window.resize(10, 1000), Err(Overflow));
        for _ in 0..3 {
            let mut shrunk = Sending::new(0);
            shrunk.resize(LARGEST, 0).unwrap();
            shrunk.resize(LARGEST, 0).unwrap();
            assert_eq!(shrunk.room(), 0);
        }
    }

    #[test]
    fn what_was_read_is_granted_again_in_halves() {
        let mut granted = Granted::new(100);
        granted.came(100).unwrap();
        assert_eq!(granted.came(1), Err(Overrun));
        assert_eq!(granted.read(49), None);
        assert_eq!(granted.read(1), Some(50));
        granted.came(50).unwrap();
        assert_eq!(granted.came(1), Err(Overrun));
    }
}

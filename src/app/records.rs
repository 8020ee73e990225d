//! What a Python process writes, cut into records: a line each, but a traceback with everything that belongs to it is one.

/// Lines are cut here; what follows is a line of its own.
pub(super) const LONGEST_LINE: usize = 8 * 1024;

/// A traceback is cut here: one of a recursion repeats itself anyway.
const LONGEST_TRACEBACK: usize = 64 * 1024;

/// Empty lines behind a traceback that are kept; nobody needs to count more.
const MOST_BLANK: usize = 8;

const BEGINS: &str = "Traceback (most recent call last):";

/// The lines that join two tracebacks into a chain.
const JOINS: [&str; 2] = [
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
];

/// Something that is told at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Line(String),
    /// Without a line break at its end.
    Traceback(String),
}

/// Puts lines together.
#[derive(Debug, Default)]
pub(super) struct Records {
    traceback: String,
    at: At,
    /// Empty lines that may yet turn out to join two tracebacks.
    blank: usize,
}

/// Where in a traceback the next line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Outside,
    /// Among the frames; the line that is not indented ends them.
    Frames,
    /// Behind the exception itself, whose message may have more lines, or a join.
    Message,
    /// Behind a join: another traceback follows.
    Joined,
}

impl Records {
    /// Takes a line, without its break, and gives what is complete now.
    pub(super) fn push(&mut self, line: &str) -> Vec<Record> {
        let mut complete = Vec::new();
        match self.at {
            At::Outside => {}
            At::Frames => {
                let is_frame = line.starts_with([' ', '\t']) || line.is_empty();
                self.add(line);
                if !is_frame {
                    self.at = At::Message;
                }
                return complete;
            }
            At::Message if line.is_empty() => {
                self.blank = self.blank.saturating_add(1).min(MOST_BLANK);
                return complete;
            }
            At::Message if self.blank > 0 && JOINS.contains(&line) => {
                self.add_blanks();
                self.add(line);
                self.at = At::Joined;
                return complete;
            }
            // The message of an exception may go on, and so may its notes: indented, as what has more lines mostly is.
            At::Message if line.starts_with([' ', '\t']) => {
                self.add_blanks();
                self.add(line);
                return complete;
            }
            At::Joined if line.is_empty() => {
                self.add(line);
                return complete;
            }
            At::Joined if is_beginning(line) => {
                self.add(line);
                self.at = At::Frames;
                return complete;
            }
            At::Message | At::Joined => complete.extend(self.flush()),
        }
        if is_beginning(line) {
            self.add(line);
            self.at = At::Frames;
        } else {
            complete.push(Record::Line(line.to_owned()));
        }
        complete
    }

    /// Nothing has come for a while: what is there is told as it is.
    pub(super) fn flush(&mut self) -> Vec<Record> {
        self.at = At::Outside;
        let blank = std::mem::take(&mut self.blank);
        let mut told = Vec::new();
        if !self.traceback.is_empty() {
            told.push(Record::Traceback(std::mem::take(&mut self.traceback)));
        }
        told.extend(std::iter::repeat_n(Record::Line(String::new()), blank));
        told
    }

    pub(super) fn is_empty(&self) -> bool {
        self.traceback.is_empty()
    }

    fn add_blanks(&mut self) {
        for _ in 0..std::mem::take(&mut self.blank) {
            self.add("");
        }
    }

    fn add(&mut self, line: &str) {
        if self.traceback.len().saturating_add(line.len()) > LONGEST_TRACEBACK {
            return;
        }
        if !self.traceback.is_empty() {
            self.traceback.push('\n');
        }
        self.traceback.push_str(line);
    }
}

/// Of a group of exceptions, the line is indented and has a mark in front.
fn is_beginning(line: &str) -> bool {
    line.trim_start_matches([' ', '+', '|']) == BEGINS
        || line.trim_start() == "+ Exception Group Traceback (most recent call last):"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(text: &str) -> Vec<Record> {
        let mut records = Records::default();
        let mut all: Vec<Record> = text.lines().flat_map(|line| records.push(line)).collect();
        all.extend(records.flush());
        all
    }

    fn line(text: &str) -> Record {
        Record::Line(text.to_owned())
    }

    const ONE: &str = "Traceback (most recent call last):\n  File \"app.py\", line 1, in view\n    1 / 0\n    ~~^~~\nZeroDivisionError: division by zero";

    #[test]
    fn a_traceback_is_one_record() {
        let text = format!("before\n{ONE}\nafter");
        assert_eq!(records(&text), [line("before"), Record::Traceback(ONE.to_owned()), line("after")]);
        assert_eq!(
            records(&format!("{ONE}\n{ONE}")),
            [Record::Traceback(ONE.to_owned()), Record::Traceback(ONE.to_owned())]
        );
        // One that breaks off is told as far as it came.
        let cut = "Traceback (most recent call last):\n  File \"app.py\"";
        assert_eq!(records(cut), [Record::Traceback(cut.to_owned())]);
    }

    #[test]
    fn a_chain_is_one_record() {
        for join in JOINS {
            let chain = format!("{ONE}\n\n{join}\n\n{ONE}");
            assert_eq!(records(&format!("{chain}\nafter")), [Record::Traceback(chain.clone()), line("after")]);
        }
    }

    #[test]
    fn what_is_no_traceback_stays_apart() {
        assert_eq!(records("a\n\n  b"), [line("a"), line(""), line("  b")]);
        let text = format!("{ONE}\n\nnext");
        assert_eq!(records(&text), [Record::Traceback(ONE.to_owned()), line(""), line("next")]);
    }

    #[test]
    fn an_endless_traceback_is_cut() {
        let mut records = Records::default();
        records.push(BEGINS);
        for _ in 0..10_000 {
            assert!(records.push("  File \"app.py\", line 1, in deeper").is_empty());
        }
        let told = records.push("RecursionError: maximum recursion depth exceeded");
        assert!(told.is_empty());
        let [Record::Traceback(text)] = &records.flush()[..] else { panic!() };
        assert!(text.len() <= LONGEST_TRACEBACK);
    }
}

//! What is counted of answers that were compressed on their way.

use super::WorkerId;
use super::cells::Cells;

/// The label values of `coding`, in the order of [`CodedWith`].
const CODINGS: usize = CodedWith::ALL.len();
const ANSWERS: usize = 0;
const INPUT: usize = ANSWERS + CODINGS;
const OUTPUT: usize = INPUT + CODINGS;
const REFUSED: usize = OUTPUT + CODINGS;

/// What an answer was coded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodedWith {
    Zstd,
    Brotli,
    Gzip,
}

impl CodedWith {
    pub(super) const ALL: [CodedWith; 3] = [CodedWith::Zstd, CodedWith::Brotli, CodedWith::Gzip];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            CodedWith::Zstd => "zstd",
            CodedWith::Brotli => "br",
            CodedWith::Gzip => "gzip",
        }
    }
}

/// The counters of all routes together.
#[derive(Debug)]
pub struct CompressionMetrics {
    cells: Cells<{ REFUSED + 1 }>,
}

impl CompressionMetrics {
    pub(super) fn new(workers: usize) -> CompressionMetrics {
        CompressionMetrics { cells: Cells::new(workers) }
    }

    /// An answer has ended, of whose body so many bytes were coded into so many.
    pub fn coded(&self, worker: WorkerId, with: CodedWith, input: u64, output: u64) {
        let cells = self.cells.of(worker);
        cells.add(ANSWERS + with as usize, 1);
        cells.add(INPUT + with as usize, input);
        cells.add(OUTPUT + with as usize, output);
    }

    /// An answer went as it is since enough others were being coded.
    pub fn refused(&self, worker: WorkerId) {
        self.cells.of(worker).add(REFUSED, 1);
    }

    pub(super) fn answers_total(&self, with: CodedWith) -> u64 {
        self.cells.sum(ANSWERS + with as usize)
    }

    pub(super) fn input_total(&self, with: CodedWith) -> u64 {
        self.cells.sum(INPUT + with as usize)
    }

    pub(super) fn output_total(&self, with: CodedWith) -> u64 {
        self.cells.sum(OUTPUT + with as usize)
    }

    pub(super) fn refused_total(&self) -> u64 {
        self.cells.sum(REFUSED)
    }
}

//! Seeded changes to bytes, of the kinds that find something in texts and in frames: no fuzzer, which sees what its input
//! reaches, but the same on every machine and over in seconds.

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Longest input that is made.
pub const BYTES_MAX: usize = 64 * 1024;
/// Most changes to one input.
const CHANGES_MAX: usize = 4;

/// What parsers stumble over.
const WORDS: [&[u8]; 44] = [
    b"\0",
    b"\n",
    b"\r\n",
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"=",
    b"/",
    b"#",
    b"+",
    b"&",
    b"%00",
    b"null",
    b"true",
    b"false",
    b"0",
    b"-0",
    b"-1",
    b"1e999",
    b"1e-999",
    b"0.1",
    b"9007199254740993",
    b"9223372036854775807",
    b"9223372036854775808",
    b"-9223372036854775809",
    b"18446744073709551616",
    b"NaN",
    b"\\u0000",
    b"\\ud800",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    "\u{202e}".as_bytes(),
    "é".as_bytes(),
    "🛸".as_bytes(),
    b"{}",
    b"[]",
    b"\"\"",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
];

/// Makes inputs of seeds.
pub struct Mutator<'a> {
    dice: StdRng,
    seeds: &'a [Vec<u8>],
}

impl<'a> Mutator<'a> {
    /// One that makes the same inputs of the same seeds every time.
    #[must_use]
    pub fn new(seed: u64, seeds: &'a [Vec<u8>]) -> Self {
        Self { dice: StdRng::seed_from_u64(seed), seeds }
    }

    /// The next input.
    pub fn next_input(&mut self) -> Vec<u8> {
        let mut input = self.any_seed();
        for _ in 0..self.dice.random_range(1..=CHANGES_MAX) {
            self.change(&mut input);
        }
        input.truncate(BYTES_MAX);
        input
    }

    /// An input of so many bytes: a seed in which something comes again and again, often within one of its texts.
    pub fn grown(&mut self, bytes: usize) -> Vec<u8> {
        const AGAIN: [&[u8]; 7] = [b"x", b"\\u0000", b"[", b"{\"a\":", b"1,", b"&a=1", b"\n"];
        let mut input = self.any_seed();
        let quotes = input.iter().enumerate().filter(|(_, byte)| **byte == b'"');
        let quotes: Vec<usize> = quotes.map(|(at, _)| at + 1).collect();
        let at = match quotes.len() {
            0 => self.dice.random_range(0..=input.len()),
            count => quotes[self.dice.random_range(0..count)],
        };
        let again = AGAIN[self.dice.random_range(0..AGAIN.len())];
        let missing = bytes.saturating_sub(input.len());
        input.splice(at..at, again.iter().copied().cycle().take(missing));
        input
    }

    fn any_seed(&mut self) -> Vec<u8> {
        match self.seeds.len() {
            0 => Vec::new(),
            count => self.seeds[self.dice.random_range(0..count)].clone(),
        }
    }

    /// A part of something `length` long: where it begins, and where it ends.
    fn part(&mut self, length: usize) -> (usize, usize) {
        let from = self.dice.random_range(0..=length);
        let most = if self.dice.random_bool(0.5) { 8 } else { length };
        let to = from + self.dice.random_range(0..=most.min(length - from));
        (from, to)
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let (from, to) = self.part(input.len());
        match self.dice.random_range(0..9) {
            0 => drop(input.drain(from..to)),
            1 => {
                let again = input[from..to].to_vec();
                input.splice(to..to, again);
            }
            2 => {
                let again = input[from..to].to_vec();
                let at = self.dice.random_range(0..=input.len());
                input.splice(at..at, again);
            }
            3 | 4 => {
                let word = WORDS[self.dice.random_range(0..WORDS.len())].to_vec();
                let to = if self.dice.random_bool(0.5) { to } else { from };
                input.splice(from..to, word);
            }
            5 => {
                if let Some(byte) = input.get_mut(from) {
                    *byte ^= 1 << self.dice.random_range(0..8);
                }
            }
            6 => {
                if let Some(byte) = input.get_mut(from) {
                    *byte = self.dice.random_range(0..=u8::MAX);
                }
            }
            7 => {
                let other = self.any_seed();
                let (begin, end) = self.part(other.len());
                input.splice(from..to, other[begin..end].to_vec());
            }
            _ => self.other_number(input, from),
        }
    }

    /// Another number in the place of the next one.
    fn other_number(&mut self, input: &mut Vec<u8>, from: usize) {
        let Some(begin) = input[from..].iter().position(u8::is_ascii_digit) else { return };
        let begin = from + begin;
        let length = input[begin..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number = match self.dice.random_range(0..3) {
            0 => self.dice.random_range(0..200_u64),
            1 => u64::MAX >> self.dice.random_range(0..64),
            _ => 1 << self.dice.random_range(0..64),
        };
        input.splice(begin..begin + length, number.to_string().into_bytes());
    }
}

//! The known name most like a mistyped one: for "did you mean".

/// Longer names are not compared: nobody mistypes that much.
const CHARS_MAX: usize = 64;

/// The known name that is most like `name`, if one is like it at all. Capitals do not count.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let length = name.chars().count();
    if length == 0 || CHARS_MAX < length {
        return None;
    }
    let limit = (length / 3).clamp(1, 8);
    let lower = name.to_ascii_lowercase();
    known
        .map(|candidate| (distance(&lower, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// How many letters must be changed, added or taken away to make one text of the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let (mut diagonal, mut left) = (i, i + 1);
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
        for (cell, b) in row.iter_mut().skip(1).zip(&other) {
            let above = *cell;
            left = (diagonal + usize::from(a != *b)).min(above + 1).min(left + 1);
            diagonal = above;
            *cell = left;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_counts_letters() {
        for (one, other, expected) in
            [("", "abc", 3), ("abc", "abc", 0), ("kitten", "sitting", 3), ("flaw", "lawn", 2)]
        {
            assert_eq!(distance(one, other), expected, "{one} {other}");
            assert_eq!(distance(other, one), expected, "{other} {one}");
        }
    }

    #[test]
    fn a_slip_of_the_finger_finds_its_name_and_a_foreign_word_finds_none() {
        let known = ["http.listen", "http.body_bytes_max", "cover_open", "cover_close", "late"];
        for (typed, meant) in [
            ("http.lisen", Some("http.listen")),
            ("HTTP.LISTEN", Some("http.listen")),
            ("http.body_byte_max", Some("http.body_bytes_max")),
            ("cover_opn", Some("cover_open")),
            ("COVER-CLOSE", Some("cover_close")),
            ("lat", Some("late")),
            ("database.url", None),
            ("self_destruct", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, known.into_iter()), meant, "{typed}");
        }
        assert_eq!(nearest(&"late".repeat(100), known.into_iter()), None);
    }
}

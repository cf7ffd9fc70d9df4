//! The known name most like a mistyped one.

/// The known name that is most like `name`, if one is like it at all.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const CHARS_MAX: usize = 100;
    let length = name.chars().count();
    if length == 0 || length > CHARS_MAX {
        return None;
    }
    let limit = (length / 3).clamp(1, 8);
    known
        .map(|candidate| {
            (distance(&name.to_ascii_lowercase(), &candidate.to_ascii_lowercase()), candidate)
        })
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// How many letters must be changed, added or taken away to make one text of the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(&other) {
            let above = *cell;
            left = (diagonal + usize::from(a != *b)).min(above + 1).min(left + 1);
            diagonal = above;
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_its_key_and_a_foreign_word_finds_none() {
        let known = ["http.listen", "http.body_bytes_max", "mqtt.embedded.listen"];
        for (typed, meant) in [
            ("http.lisen", Some("http.listen")),
            ("HTTP.LISTEN", Some("http.listen")),
            ("http.body_byte_max", Some("http.body_bytes_max")),
            ("database.url", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, known.into_iter()), meant, "{typed}");
        }
        assert_eq!(nearest(&"http.listen".repeat(1000), known.into_iter()), None);
    }
}

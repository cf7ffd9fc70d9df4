//! The known name most like a mistyped one.

/// Longer names are not compared: nobody mistypes that much.
const CHARS_MAX: usize = 64;

/// The known name that is most like `name`, if one is like it at all.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let length = name.chars().count();
    if length == 0 || CHARS_MAX < length {
        return None;
    }
    let limit = (length / 3).clamp(1, 8);
    known
        .map(|candidate| (distance(&name.to_ascii_lowercase(), candidate), candidate))
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
    fn a_slip_of_the_finger_finds_its_name_and_a_foreign_word_finds_none() {
        let known = ["late", "never", "wrong_tid", "wrong_bid"];
        for (typed, meant) in [
            ("lat", Some("late")),
            ("NEVER", Some("never")),
            ("wrong-tid", Some("wrong_tid")),
            ("explode", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, known.into_iter()), meant, "{typed}");
        }
        assert_eq!(nearest(&"late".repeat(100), known.into_iter()), None);
    }
}

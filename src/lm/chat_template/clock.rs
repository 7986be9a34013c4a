//! The date as chat templates ask for it: Python's `strftime`, in UTC and English, always of the beginning of 26 July 2024.
//!
//! In: a format. Out: text. A prompt that changed with the day would change scores. The day is the one that Llama's templates
//! fall back to.

/// Formats the moment.
///
/// # Errors
/// When the format has a directive that is not known here, which is named.
pub(super) fn strftime(format: &str) -> Result<String, String> {
    let mut out = String::with_capacity(format.len() + 16);
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let directive = chars.next().unwrap_or('%');
        // `%-d`: without padding, as the C library writes it.
        let (directive, padded) =
            if directive == '-' { (chars.next().unwrap_or('-'), false) } else { (directive, true) };
        let text = part(directive).ok_or_else(|| format!("strftime_now: %{directive} is not known"))?;
        let number = text.parse::<u32>().ok().filter(|_| !padded && !text.starts_with('+'));
        out.push_str(&number.map_or_else(|| text.to_owned(), |number| number.to_string()));
    }
    Ok(out)
}

fn part(directive: char) -> Option<&'static str> {
    Some(match directive {
        'Y' => "2024",
        'y' => "24",
        'm' => "07",
        'd' => "26",
        'j' => "208",
        'H' | 'M' | 'S' => "00",
        'I' => "12",
        'p' => "AM",
        'B' => "July",
        'b' | 'h' => "Jul",
        'A' => "Friday",
        'a' => "Fri",
        'F' => "2024-07-26",
        'T' => "00:00:00",
        'Z' => "UTC",
        'z' => "+0000",
        '%' => "%",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::strftime;

    #[test]
    fn agrees_with_python() {
        let all = "%d %b %Y|%A, %-d %B %y|%F %T|%I:%M:%S %p|%-H %-m %-j %-z|%j|%a|%h %Z%z|100%%";
        let wanted =
            "26 Jul 2024|Friday, 26 July 24|2024-07-26 00:00:00|12:00:00 AM|0 7 208 +0000|208|Fri|Jul UTC+0000|100%";
        assert_eq!(strftime(all).unwrap(), wanted);
    }

    #[test]
    fn an_unknown_directive_is_named() {
        assert_eq!(strftime("%Q").unwrap_err(), "strftime_now: %Q is not known");
        assert_eq!(strftime("%-").unwrap_err(), "strftime_now: %- is not known");
    }
}

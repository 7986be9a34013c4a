//! The date as chat templates ask for it: Python's `strftime`, in UTC and English.
//!
//! In: seconds since 1970 and a format. Out: text. Reads no clock: a prompt that changed with the day would change scores.

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
const DAY_SECONDS: i64 = 86_400;
/// 0001-01-01 and 9999-12-31: what Python's dates span.
const RANGE: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// A moment, split into what a format can name.
#[derive(Debug, Clone, Copy)]
struct DateTime {
    year: i64,
    /// 0 to 11.
    month: i64,
    /// 1 to 31.
    day: i64,
    /// Days since 1970-01-01, a Thursday.
    days: i64,
    /// 0 to 86,399.
    second: i64,
}

/// Formats a moment.
///
/// # Errors
/// When the format has a directive that is not known here, which is named.
pub(super) fn strftime(unix_seconds: i64, format: &str) -> Result<String, String> {
    let moment = DateTime::at(unix_seconds.clamp(*RANGE.start(), *RANGE.end()));
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
        out.push_str(
            &moment.part(directive, padded).ok_or_else(|| format!("strftime_now: %{directive} is not known"))?,
        );
    }
    Ok(out)
}

impl DateTime {
    fn at(unix_seconds: i64) -> Self {
        let days = unix_seconds.div_euclid(DAY_SECONDS);
        // Never too late: a year has at most 366 days, and at least 365 on the way back.
        let mut year = 1970 + days.div_euclid(if days < 0 { 365 } else { 366 });
        while start_of(year + 1) <= days {
            year += 1;
        }
        let (mut month, mut day) = (0, days - start_of(year));
        while day >= month_days(year, month) {
            day -= month_days(year, month);
            month += 1;
        }
        Self { year, month, day: day + 1, days, second: unix_seconds.rem_euclid(DAY_SECONDS) }
    }

    fn part(self, directive: char, padded: bool) -> Option<String> {
        let number = |value: i64, width: usize| {
            if padded { format!("{value:0width$}") } else { value.to_string() }
        };
        let name = |names: &[&str], index: i64| {
            usize::try_from(index).ok().and_then(|index| names.get(index)).map_or_else(String::new, ToString::to_string)
        };
        let short = |name: String| name.chars().take(3).collect::<String>();
        let hour = self.second / 3600;
        Some(match directive {
            'Y' => number(self.year, 4),
            'y' => number(self.year % 100, 2),
            'm' => number(self.month + 1, 2),
            'd' => number(self.day, 2),
            'j' => number(self.days - start_of(self.year) + 1, 3),
            'H' => number(hour, 2),
            'I' => number((hour + 11) % 12 + 1, 2),
            'M' => number(self.second / 60 % 60, 2),
            'S' => number(self.second % 60, 2),
            'p' => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            'B' => name(&MONTHS, self.month),
            'b' | 'h' => short(name(&MONTHS, self.month)),
            'A' => name(&DAYS, self.days.rem_euclid(7)),
            'a' => short(name(&DAYS, self.days.rem_euclid(7))),
            'F' => [self.part('Y', true)?, self.part('m', true)?, self.part('d', true)?].join("-"),
            'T' => [self.part('H', true)?, self.part('M', true)?, self.part('S', true)?].join(":"),
            'Z' => "UTC".to_owned(),
            'z' => "+0000".to_owned(),
            '%' => "%".to_owned(),
            _ => return None,
        })
    }
}

/// Days from 1970-01-01 to the first of January of a year.
fn start_of(year: i64) -> i64 {
    let before = year - 1;
    365 * (year - 1970) + before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400) - 477
}

fn month_days(year: i64, month: i64) -> i64 {
    match month {
        1 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        1 => 28,
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::strftime;

    const ALL: &str = "%d %b %Y|%A, %-d %B %y|%F %T|%I:%M:%S %p|%j|%a|100%%";

    #[test]
    fn agrees_with_python_on_leap_years_and_before_1970() {
        let cases = [
            (0, "01 Jan 1970|Thursday, 1 January 70|1970-01-01 00:00:00|12:00:00 AM|001|Thu|100%"),
            (1_709_208_000, "29 Feb 2024|Thursday, 29 February 24|2024-02-29 12:00:00|12:00:00 PM|060|Thu|100%"),
            (951_868_799, "29 Feb 2000|Tuesday, 29 February 00|2000-02-29 23:59:59|11:59:59 PM|060|Tue|100%"),
            (4_107_542_400, "01 Mar 2100|Monday, 1 March 00|2100-03-01 00:00:00|12:00:00 AM|060|Mon|100%"),
            (-1, "31 Dec 1969|Wednesday, 31 December 69|1969-12-31 23:59:59|11:59:59 PM|365|Wed|100%"),
            (1_735_603_200, "31 Dec 2024|Tuesday, 31 December 24|2024-12-31 00:00:00|12:00:00 AM|366|Tue|100%"),
        ];
        for (unix_seconds, wanted) in cases {
            assert_eq!(strftime(unix_seconds, ALL).unwrap(), wanted);
        }
    }

    #[test]
    fn any_number_of_seconds_is_some_date() {
        assert_eq!(strftime(i64::MAX, "%F").unwrap(), "9999-12-31");
        assert_eq!(strftime(i64::MIN, "%F").unwrap(), "0001-01-01");
    }

    #[test]
    fn an_unknown_directive_is_named() {
        assert_eq!(strftime(0, "%Q").unwrap_err(), "strftime_now: %Q is not known");
        assert_eq!(strftime(0, "%-").unwrap_err(), "strftime_now: %- is not known");
    }
}

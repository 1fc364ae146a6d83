//! What a person sees on a terminal after a program wrote to it: lines that wrap, and a cursor that is moved.

/// The rows of a screen of so many columns, the oldest first, without what is blank at their ends. As much as progress
/// bars use is understood: `\r`, `\n`, cursor up and down, and clearing of lines.
///
/// # Panics
/// Another control sequence: what it does would be missing in the picture.
pub fn screen(written: &str, columns: usize) -> Vec<String> {
    let mut rows = vec![Vec::new()];
    let (mut row, mut column) = (0_usize, 0_usize);
    let mut rest = written.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\r' => column = 0,
            '\n' => row += 1,
            '\x1b' => {
                assert_eq!(rest.next(), Some('['), "no control sequence");
                let mut number = String::new();
                let end = loop {
                    match rest.next().expect("a whole control sequence") {
                        digit if digit.is_ascii_digit() || digit == '?' => number.push(digit),
                        end => break end,
                    }
                };
                let count = number.parse().unwrap_or(1);
                match end {
                    'A' => row = row.saturating_sub(count),
                    'B' => row += count,
                    'K' => rows[row].clear(),
                    'h' | 'l' => {}
                    other => panic!("unknown control sequence {number}{other}"),
                }
            }
            c => {
                // The last column leaves the cursor there until something more is written.
                if column == columns {
                    (row, column) = (row + 1, 0);
                }
                while rows.len() <= row {
                    rows.push(Vec::new());
                }
                let line = &mut rows[row];
                while line.len() <= column {
                    line.push(' ');
                }
                line[column] = c;
                column += 1;
            }
        }
        while rows.len() <= row {
            rows.push(Vec::new());
        }
    }
    rows.into_iter()
        .map(|row| row.into_iter().collect::<String>().trim_end().to_owned())
        .filter(|row| !row.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::screen;

    #[test]
    fn lines_wrap_and_are_drawn_over() {
        assert_eq!(screen("abcdef\r\ng", 4), ["abcd", "ef", "g"]);
        assert_eq!(screen("abcd\r\ng", 4), ["abcd", "g"]);
        assert_eq!(screen("one\r\ntwo\x1b[1A\r\x1b[2Kx", 9), ["x", "two"]);
    }
}

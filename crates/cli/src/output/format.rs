//! `--format`: `table`, `table TEMPLATE`, `json` or a template, for every verb that lists.

use crate::template::{Functions, Template, TemplateError, Value};

use super::columns::align;

/// What `--format` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns under headings; `None` is the verb's own columns.
    Table(Option<String>),
    /// One JSON object per line.
    Json,
    /// A template per row.
    Template(String),
}

impl Format {
    /// Reads the flag's value, with Docker's escapes for tab and new line.
    pub fn parse(text: Option<&str>) -> Self {
        let Some(text) = text.filter(|t| !t.is_empty()) else {
            return Self::Table(None);
        };
        let escapes = |template: &str| template.replace("\\t", "\t").replace("\\n", "\n");
        match text {
            "json" => Self::Json,
            "table" => Self::Table(None),
            _ => match text.strip_prefix("table ") {
                Some(columns) => Self::Table(Some(escapes(columns.trim()))),
                None => Self::Template(escapes(text)),
            },
        }
    }
}

/// Rows of one kind: what the columns are called and which are shown unless asked otherwise.
pub struct Listing<'a> {
    /// Field and heading.
    pub headings: &'a [(&'a str, &'a str)],
    /// The table's template when the user gives none.
    pub table: &'a str,
}

impl Listing<'_> {
    /// The rows as `format` wants them, with a new line after each.
    ///
    /// # Errors
    /// A template that is wrong or does not fit the rows.
    pub fn render(&self, format: &Format, rows: &[Value]) -> Result<String, TemplateError> {
        match format {
            Format::Json => {
                let mut out = String::new();
                for row in rows {
                    out.push_str(&sorted(row).to_json());
                    out.push('\n');
                }
                Ok(out)
            }
            Format::Template(source) => self.lines(&Template::parse(source)?, rows),
            Format::Table(columns) => {
                let template = Template::parse(columns.as_deref().unwrap_or(self.table))?;
                let rows: Vec<Value> = rows.iter().map(Value::cells).collect();
                let mut text = template.render(&self.header(), Functions::Header)?;
                text.push('\n');
                text.push_str(&self.lines(&template, &rows)?);
                Ok(align(&text))
            }
        }
    }

    fn lines(&self, template: &Template, rows: &[Value]) -> Result<String, TemplateError> {
        let mut out = String::new();
        for row in rows {
            out.push_str(&template.render(row, Functions::Data)?);
            out.push('\n');
        }
        Ok(out)
    }

    fn header(&self) -> Value {
        let heading =
            |(field, heading): &(&str, &str)| ((*field).to_owned(), Value::from(*heading));
        let mut members: Vec<_> = self.headings.iter().map(heading).collect();
        // `{{.Label "key"}}` is headed by its key.
        members.push(("Label".to_owned(), Value::Lookup(Vec::new())));
        Value::Map(members)
    }
}

/// Docker's rows come from a Go map, so their members are in alphabetical order.
fn sorted(row: &Value) -> Value {
    match row {
        Value::Map(members) => {
            let mut members = members.clone();
            members.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Map(members)
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: Listing<'_> = Listing {
        headings: &[("ID", "CONTAINER ID"), ("Names", "NAMES")],
        table: "{{.ID}}\t{{.Names}}",
    };

    fn rows() -> Vec<Value> {
        let row = |id: &str, name: &str| {
            Value::Map(vec![
                ("Names".to_owned(), name.into()),
                ("ID".to_owned(), id.into()),
            ])
        };
        vec![row("aaaaaaaaaaaa", "web"), row("cccccccccccc", "db")]
    }

    fn show(format: &str) -> String {
        LISTING
            .render(&Format::parse(Some(format)), &rows())
            .unwrap()
    }

    #[test]
    fn tables_have_headings_and_templates_choose_columns() {
        let table = "CONTAINER ID   NAMES\naaaaaaaaaaaa   web\ncccccccccccc   db\n";
        assert_eq!(show(""), table);
        assert_eq!(show("table"), table);
        assert_eq!(
            show("table {{upper .Names}}\\t{{.ID}}"),
            "NAMES     CONTAINER ID\nWEB       aaaaaaaaaaaa\nDB        cccccccccccc\n"
        );
    }

    #[test]
    fn json_is_a_line_per_row_in_alphabetical_order() {
        assert_eq!(
            show("json").lines().next(),
            Some("{\"ID\":\"aaaaaaaaaaaa\",\"Names\":\"web\"}")
        );
    }

    #[test]
    fn templates_print_a_line_per_row_without_headings() {
        assert_eq!(
            show("{{.Names}}\\t{{.ID}}"),
            "web\taaaaaaaaaaaa\ndb\tcccccccccccc\n"
        );
    }

    #[test]
    fn no_cell_of_a_table_forges_a_line_or_a_column() {
        let row = Value::Map(vec![
            ("ID".to_owned(), "a\nforged\tx".into()),
            ("Names".to_owned(), "\u{1b}]0;x".into()),
        ]);
        let shown = |format| {
            LISTING
                .render(&Format::parse(Some(format)), std::slice::from_ref(&row))
                .unwrap()
        };
        assert_eq!(
            shown("table"),
            "CONTAINER ID   NAMES\na forged x     \u{fffd}]0;x\n"
        );
        // For programs, as with Docker.
        assert_eq!(shown("{{.ID}}"), "a\nforged\tx\n");
    }

    #[test]
    fn an_unknown_field_is_an_error() {
        assert!(
            LISTING
                .render(&Format::parse(Some("{{.Nope}}")), &rows())
                .is_err()
        );
    }
}

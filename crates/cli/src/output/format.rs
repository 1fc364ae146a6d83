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

/// A format that was found to fit before there is anything to show.
pub struct Layout {
    format: Format,
    template: Option<Template>,
    header: Value,
}

impl Listing<'_> {
    /// Reads `format`'s template, which must name no field that the rows do not have: a template with a typing mistake is
    /// one with and without rows.
    ///
    /// # Errors
    /// A template that is wrong.
    pub fn layout(&self, format: Format) -> Result<Layout, TemplateError> {
        let header = self.header();
        let template = match &format {
            Format::Json => None,
            Format::Template(source) => Some(Template::parse(source)?),
            Format::Table(columns) => {
                Some(Template::parse(columns.as_deref().unwrap_or(self.table))?)
            }
        };
        // What else fails depends on the values, and the headings are none.
        match template
            .as_ref()
            .map(|template| template.render(&header, Functions::Header))
        {
            Some(Err(error)) if error.is_unknown_field() => Err(error),
            _ => Ok(Layout {
                format,
                template,
                header,
            }),
        }
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

impl Layout {
    /// The rows as the format wants them, with a new line after each.
    ///
    /// # Errors
    /// A template that does not fit the rows.
    pub fn render(&self, rows: &[Value]) -> Result<String, TemplateError> {
        let Some(template) = &self.template else {
            let lines = rows.iter().map(|row| sorted(row).to_json() + "\n");
            return Ok(lines.collect());
        };
        let mut text = String::new();
        let table = matches!(self.format, Format::Table(_));
        if table {
            text = template.render(&self.header, Functions::Header)? + "\n";
        }
        for row in rows {
            let cells = table.then(|| row.cells());
            let row = cells.as_ref().unwrap_or(row);
            text.push_str(&template.render(row, Functions::Data)?);
            text.push('\n');
        }
        Ok(if table { align(&text) } else { text })
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
        let layout = LISTING.layout(Format::parse(Some(format))).unwrap();
        layout.render(&rows()).unwrap()
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
            let layout = LISTING.layout(Format::parse(Some(format))).unwrap();
            layout.render(std::slice::from_ref(&row)).unwrap()
        };
        assert_eq!(
            shown("table"),
            "CONTAINER ID   NAMES\na forged x     \u{fffd}]0;x\n"
        );
        // For programs, as with Docker.
        assert_eq!(shown("{{.ID}}"), "a\nforged\tx\n");
    }

    #[test]
    fn an_unknown_field_is_an_error_before_there_are_rows() {
        for wrong in ["{{.Nope}}", "table {{.Nope}}", "{{.ID}}{{"] {
            let layout = LISTING.layout(Format::parse(Some(wrong)));
            assert!(layout.is_err(), "{wrong}");
        }
        // Right for some rows, wrong for others.
        let layout = LISTING.layout(Format::parse(Some("{{slice .ID 0 99}}")));
        assert_eq!(layout.unwrap().render(&[]).unwrap(), "");
    }
}

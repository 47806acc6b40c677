//! The header as a page to read: `docs/api.md`.

/// What a comment of the header and the declaration after it say.
enum Item {
    Section(String),
    /// Name, value.
    Constant(String, String),
    /// Name, declaration.
    Other(String, String),
    /// Name, and of each field its declaration and comment.
    Struct(String, Vec<(String, String)>),
}

/// The text of a comment that begins at a line, and the line after it.
fn comment<'a>(lines: &[&'a str], mut at: usize) -> (String, usize) {
    let strip = |line: &'a str| {
        line.trim().trim_start_matches("/**").trim_end_matches("*/").trim().trim_start_matches("* ").trim()
    };
    let mut words = Vec::new();
    loop {
        let line = lines[at];
        at += 1;
        words.push(strip(line));
        if line.trim_end().ends_with("*/") {
            let text = words.into_iter().filter(|w| !w.is_empty() && *w != "*").collect::<Vec<_>>().join(" ");
            return (text, at);
        }
    }
}

/// The name that a declaration declares.
fn name_of(declaration: &str) -> String {
    let before = if let Some(at) = declaration.find("(*") {
        &declaration[at + 2..declaration[at..].find(')').unwrap() + at]
    } else {
        declaration.split('(').next().unwrap().trim_end_matches(';')
    };
    before.rsplit([' ', '*']).next().unwrap().to_string()
}

fn items(header: &str) -> Vec<(String, Item)> {
    let lines: Vec<&str> = header.lines().collect();
    let mut at = lines.iter().position(|line| line.starts_with("/* ----")).expect("the header has sections");
    let mut items = Vec::new();
    let mut doc = String::new();
    while at < lines.len() && !lines[at].starts_with("#ifdef") {
        let line = lines[at];
        if line.starts_with("/* ----") {
            items.push((String::new(), Item::Section(line.trim_matches(['/', '*', '-', ' ']).to_string())));
            at += 1;
        } else if line.starts_with("/**") {
            (doc, at) = comment(&lines, at);
        } else if let Some(define) = line.strip_prefix("#define ") {
            let split = define.find(") ").map_or_else(|| define.find(' ').unwrap(), |at| at + 1);
            let (name, value) = define.split_at(split);
            items.push((std::mem::take(&mut doc), Item::Constant(name.into(), value.trim().into())));
            at += 1;
        } else if line.starts_with("typedef struct") && line.ends_with('{') {
            let name = line.split(' ').nth(2).unwrap().to_string();
            let mut fields = Vec::new();
            let mut about = String::new();
            at += 1;
            while !lines[at].starts_with('}') {
                if lines[at].trim().starts_with("/**") {
                    (about, at) = comment(&lines, at);
                } else {
                    fields.push((
                        lines[at].trim().trim_end_matches(';').to_string(),
                        std::mem::take(&mut about),
                    ));
                    at += 1;
                }
            }
            at += 1;
            items.push((std::mem::take(&mut doc), Item::Struct(name, fields)));
        } else if !line.is_empty() {
            let end = at + lines[at..].iter().position(|line| line.ends_with(';')).unwrap();
            let declaration =
                lines[at..=end].join("\n").replace("GRUG_API ", "").replace("GRUG_MUST_USE ", "");
            items.push((std::mem::take(&mut doc), Item::Other(name_of(&declaration), declaration)));
            at = end + 1;
        } else {
            at += 1;
        }
    }
    items
}

/// Prose with the names of the API as code, linked where they have a heading of their own.
fn prose(text: &str, headings: &[&str]) -> String {
    let mut out = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let word = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        if word == 0 {
            let c = rest.chars().next().unwrap();
            if matches!(c, '*' | '<' | '[' | '|') {
                out.push('\\');
            }
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        }
        let (name, after) = rest.split_at(word);
        if headings.contains(&name) {
            out += &format!("[`{name}`](#{name})");
        } else if name.contains('_') {
            out += &format!("`{name}`");
        } else {
            out += name;
        }
        rest = after;
    }
    out
}

/// The contracts at the top of the header: a paragraph for each word in capitals that begins a line.
fn contracts(header: &str) -> String {
    let mut out = String::new();
    for line in header.lines().skip(2).take_while(|line| line.starts_with(" *")) {
        let line = line.trim_start_matches(" *").trim_end_matches("*/");
        let text = line.trim();
        let word = text.split(' ').next().unwrap();
        if line.starts_with(' ') && !line.starts_with("   ") && word.len() > 4 && word == word.to_uppercase()
        {
            let title = word[..1].to_string() + &word[1..].to_lowercase();
            out += &format!("\n\n**{title}.** {}", prose(text[word.len()..].trim(), &[]));
        } else {
            out += &format!(" {}", prose(text, &[]));
        }
    }
    out
}

/// The page.
pub fn markdown(header: &str) -> String {
    let items = items(header);
    let headings: Vec<&str> = items
        .iter()
        .filter_map(|(_, item)| match item {
            Item::Other(name, _) | Item::Struct(name, _) => Some(name.as_str()),
            Item::Section(_) | Item::Constant(..) => None,
        })
        .collect();
    let mut out =
        "# The C API\n\nMade from `include/grug.h` by `GRUG_UPDATE_HEADER=1 cargo build`; do not edit. \
                   [embedding.md](embedding.md) is the way around it."
            .to_string();
    out += &contracts(header);
    for (doc, item) in &items {
        let doc = prose(doc, &headings);
        match item {
            Item::Section(title) => out += &format!("\n\n## {}{}", title[..1].to_uppercase(), &title[1..]),
            Item::Constant(name, value) => out += &format!("\n\n`{name}` = `{value}`: {doc}"),
            Item::Other(name, declaration) => {
                out += &format!("\n\n### {name}\n\n```c\n{declaration}\n```\n\n{doc}")
            }
            Item::Struct(name, fields) => {
                out += &format!("\n\n### {name}\n\n{doc}\n\n| field | |\n|---|---|");
                for (field, about) in fields {
                    out += &format!("\n| `{field}` | {} |", prose(about, &headings));
                }
            }
        }
    }
    // Constants stand together: a list.
    let mut lines: Vec<String> = Vec::new();
    for line in out.lines() {
        if line.starts_with("`GRUG_") {
            if lines.len() > 1 && lines[lines.len() - 2].starts_with("- `GRUG_") {
                lines.pop();
            }
            lines.push(format!("- {line}"));
        } else {
            lines.push(line.to_string());
        }
    }
    lines.join("\n") + "\n"
}

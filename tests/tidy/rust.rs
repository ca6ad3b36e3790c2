//! Just enough of Rust's grammar to judge source text: what is code, what is a test, and which modules a path names.

/// The text with comments, strings and characters blanked out; every line stays where it is.
pub(crate) fn code_only(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut code = String::with_capacity(source.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at);
        code.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        if end == at {
            code.push(chars[at]);
        }
        at = end.max(at + 1);
    }
    code
}

/// The code with every item behind `#[cfg(test)]` blanked out.
pub(crate) fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let (mut kept, mut rest) = (String::with_capacity(code.len()), code);
    while let Some(start) = rest.find(MARK) {
        let end = start + MARK.len() + item_end(&rest[start + MARK.len()..]);
        kept.push_str(&rest[..start]);
        kept.extend(rest[start..end].chars().filter(|c| *c == '\n'));
        rest = &rest[end..];
    }
    kept + rest
}

/// Every top-level module that the code of one file names, with the line: by `crate::`, by enough `super::`, or by
/// the crate's own name. `module` is where the file stands, `["proxy", "reply"]` for instance.
pub(crate) fn modules_named<'a>(code: &'a str, module: &[&'a str]) -> Vec<(usize, String)> {
    let tokens = tokens(code);
    let mut named = Vec::new();
    let mut inside: Vec<Option<&str>> = Vec::new(); // one for each open brace: the module it opens, if any
    let mut at = 0;
    while at < tokens.len() {
        let word = |i: usize| tokens.get(i).map_or("", |(_, token)| *token);
        match word(at) {
            "{" => inside.push((at >= 2 && word(at - 2) == "mod").then(|| word(at - 1))),
            "}" => drop(inside.pop()),
            "crate" | "keyward" | "self" | "super" if word(at + 1) == "::" && (at == 0 || word(at - 1) != "::") => {
                let here = module.iter().copied().chain(inside.iter().flatten().copied()).collect();
                at = follow(&tokens, at, here, &mut named);
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    named
}

/// Follows one path, and its branches in braces, from `at`; gives the index of the first token after it.
fn follow<'a>(
    tokens: &[(usize, &'a str)],
    mut at: usize,
    mut base: Vec<&'a str>,
    named: &mut Vec<(usize, String)>,
) -> usize {
    let start = at;
    while let Some(&(line, token)) = tokens.get(at) {
        match token {
            "{" => return follow_branches(tokens, at + 1, &base, named),
            "crate" => base.clear(),
            "keyward" if at == start => base.clear(),
            "super" => drop(base.pop()),
            "self" => {}
            _ if token == "*" || is_word(token) => {
                if base.is_empty() {
                    named.push((line, token.to_owned()));
                }
                base.push(token);
            }
            _ => return at,
        }
        at += 1;
        if tokens.get(at).is_none_or(|(_, token)| *token != "::") {
            return at;
        }
        at += 1;
    }
    at
}

fn follow_branches<'a>(
    tokens: &[(usize, &'a str)],
    mut at: usize,
    base: &[&'a str],
    named: &mut Vec<(usize, String)>,
) -> usize {
    while let Some(&(_, token)) = tokens.get(at) {
        match token {
            "}" => return at + 1,
            "," => at += 1,
            _ => {
                at = follow(tokens, at, base.to_vec(), named);
                while tokens.get(at).is_some_and(|(_, token)| !matches!(*token, "," | "}")) {
                    at += 1; // `as` and the new name
                }
            }
        }
    }
    at
}

/// Words, `::`, and every other mark by itself, each with its line.
fn tokens(code: &str) -> Vec<(usize, &str)> {
    let mut tokens = Vec::new();
    for (line, text) in code.lines().enumerate() {
        let mut rest = text.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = match rest.find(|c: char| !c.is_alphanumeric() && c != '_') {
                None => rest.len(),
                Some(0) if rest.starts_with("::") => 2,
                Some(0) => first.len_utf8(),
                Some(length) => length,
            };
            tokens.push((line + 1, &rest[..length]));
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Length of the item that starts here: up to its semicolon or the end of its braces.
fn item_end(code: &str) -> usize {
    let mut depth = 0usize;
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 && (c == ';' || (c == '}' && !code[at + 1..].starts_with(';'))) {
            return at + 1;
        }
    }
    code.len()
}

/// Where the comment, string or character that starts at `at` ends; `at` itself when none starts there.
fn literal_end(chars: &[char], at: usize) -> usize {
    let in_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match &chars[at..] {
        ['/', '/', ..] => find(chars, at, &['\n']),
        ['/', '*', ..] => block_comment_end(chars, at),
        ['"', ..] => quoted_end(chars, at + 1, '"'),
        ['r', '"' | '#', ..] if !in_word => raw_string_end(chars, at, at + 1),
        ['b' | 'c', 'r', '"' | '#', ..] if !in_word => raw_string_end(chars, at, at + 2),
        ['\'', '\\', ..] => quoted_end(chars, at + 1, '\''),
        ['\'', _, '\'', ..] => at + 3,
        _ => at,
    }
}

fn find(chars: &[char], from: usize, what: &[char]) -> usize {
    chars[from..].windows(what.len()).position(|window| window == what).map_or(chars.len(), |found| from + found)
}

fn quoted_end(chars: &[char], mut at: usize, quote: char) -> usize {
    while at < chars.len() && chars[at] != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

fn raw_string_end(chars: &[char], start: usize, hashes: usize) -> usize {
    let count = chars[hashes..].iter().take_while(|c| **c == '#').count();
    if chars.get(hashes + count) != Some(&'"') {
        return start; // a raw identifier
    }
    let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', count)).collect();
    (find(chars, hashes + count + 1, &close) + close.len()).min(chars.len())
}

fn block_comment_end(chars: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    while at < chars.len() {
        match &chars[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] if depth == 1 => return at + 2,
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    at
}

#[test]
fn only_code_is_code() {
    for (source, code) in [
        ("a // crate::b\nc", "a            \nc"),
        ("a /* x /* y */ z */ b", "a                   b"),
        (r#"f("a\"b", c)"#, "f(      , c)"),
        (r##"f(r#"a"b"#, c)"##, "f(        , c)"),
        ("f(b'\"', '\\'', 'x')", "f(b   ,     ,    )"),
        ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
        ("r#type = bar\"x\"", "r#type = bar   "),
        ("\"two\nlines\"; end", "    \n      ; end"),
        ("\"never closed", "             "),
    ] {
        assert_eq!(code_only(source), code, "{source}");
    }
}

#[test]
fn tests_are_cut_out_and_lines_kept() {
    let code = "a\n#[cfg(test)]\nmod tests {\n fn x() { y(); }\n}\nb\n#[cfg(test)] use x::{y, z};\nc\n\
                #[cfg(test)] #[rustfmt::skip] fn f(a: [u8; 4]) { g(); }\nd\n#[cfg(test)] mod tests;";
    assert_eq!(without_tests(code), "a\n\n\n\n\nb\n\nc\n\nd\n");
    assert_eq!(without_tests("a { b }"), "a { b }");
}

#[test]
fn paths_lead_to_modules() {
    #[track_caller]
    fn check(module: &[&str], code: &str, expected: &[&str]) {
        let named: Vec<String> = modules_named(&code_only(code), module).into_iter().map(|(_, name)| name).collect();
        assert_eq!(named, expected, "{code}");
    }
    check(&["proxy"], "use crate::auth::Permit;", &["auth"]);
    check(&["proxy"], "use crate::{auth::{self, Permit}, replica as r, store::*};", &["auth", "replica", "store"]);
    check(&["proxy"], "fn f(x: &crate::auth::Key) -> crate::store::X { y }", &["auth", "store"]);
    check(&["proxy"], "use super::store; use super::{tls, auth};", &["store", "tls", "auth"]);
    check(&["proxy", "reply"], "use super::forward; use self::x;", &[]);
    check(&["proxy", "reply"], "use super::super::store; use super::{super::tls, x};", &["store", "tls"]);
    check(&["proxy"], "mod tests { use super::*; use super::super::app; }", &["app"]);
    check(&["proxy"], "mod a { fn f() { if x { y } } } use super::app;", &["app"]);
    check(&["proxy"], "use crate::*;", &["*"]);
    check(
        &["proxy"],
        "use crate::{\n    auth::{self, a as b, c},\n    tls,\n};\nuse super::app;",
        &["auth", "tls", "app"],
    );
    check(&["proxy"], "pub(crate) fn f() {} pub(super) fn g() {} // crate::store\nlet x = \"crate::store\";", &[]);
    check(&["proxy"], "macro_rules! m { () => { $crate::store::x() } }", &["store"]);
    check(&["proxy"], "use other::crate_like::store; other::keyward::store();", &[]);
    check(&[], "fn main() { keyward::cli::run() }", &["cli"]);
    check(&[], "use keyward::{app, cli};", &["app", "cli"]);
    assert_eq!(modules_named("x\n\nuse crate::auth;", &["proxy"]), [(3, "auth".to_owned())]);
}

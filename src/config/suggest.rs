//! "Did you mean …?"

/// The name that a mistyped one was meant to be, as the end of a message.
pub(super) fn did_you_mean(name: &str, known: &[&str]) -> Option<String> {
    nearest(name, known.iter().copied()).map(|near| format!("; did you mean {near}?"))
}

/// The known name that is only a slip or two away. Letter case, dashes and underscores make no difference.
pub(super) fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let name = plain(name);
    let slips = |known: &str| strsim::osa_distance(&name, &plain(known));
    let near = known.map(|known| (slips(known), known)).min_by_key(|(slips, _)| *slips)?;
    (near.0 <= 1 + name.len() / 5).then_some(near.1)
}

/// Where an option of this name would have its place, as the end of a message.
pub(super) fn belongs_under(name: &str, paths: &[String]) -> Option<String> {
    let places = paths.iter().filter_map(|path| path.rsplit_once('.')).filter(|(_, last)| *last == name);
    let places: Vec<&str> = places.map(|(above, _)| above).collect();
    (1..=4).contains(&places.len()).then(|| format!("; an option of this name belongs under {}", places.join(" or ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_or_two_is_understood() {
        let known = ["listen", "upstream", "trusted_proxies", "max_head", "paths"];
        for (name, expected) in [
            ("lisen", Some("listen")),
            ("upsteam", Some("upstream")),
            ("Upstream", Some("upstream")),
            ("trustedProxies", Some("trusted_proxies")),
            ("max-head", Some("max_head")),
            ("path", Some("paths")),
            ("pahts", Some("paths")),
            ("x", None),
            ("certificate", None),
        ] {
            assert_eq!(nearest(name, known.into_iter()), expected, "{name}");
        }
    }
}

//! What keys are called: ids, names and users of all keys, one after another in a few large texts, so that the names of a
//! hundred thousand keys lie close together and a request finds those of its key in one place.

/// What a key is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names<'t> {
    /// Its id.
    pub id: &'t str,
    /// Its name.
    pub name: &'t str,
    /// The user it was handed to.
    pub user: Option<&'t str>,
}

impl Names<'_> {
    const NONE: Self = Self { id: "", name: "", user: None };
}

/// What readers see. Nothing in it ever changes or goes.
#[derive(Default)]
pub(super) struct NameTable {
    places: boxcar::Vec<Place>,
    texts: boxcar::Vec<Box<str>>,
}

/// Where the names of one key stand: three texts in a row.
struct Place {
    text: u32,
    at: u16,
    /// In bytes, as the two below.
    id: u8,
    name: u8,
    user: u32,
}

/// Names that are collected by the one who writes, and that readers do not see yet.
#[derive(Default)]
pub(super) struct Unpublished(String);

/// A text is published when it has this many bytes: names can begin at every place before.
const FULL: usize = u16::MAX as usize;

impl NameTable {
    /// The names of a key; nothing if there is none with that number, or if its names are not published yet.
    pub(super) fn get(&self, key: u32) -> Names<'_> {
        let place = self.places.get(key as usize);
        let text = |place: &Place| self.texts.get(place.text as usize);
        place.and_then(|place| Some(place.cut(text(place)?))).unwrap_or(Names::NONE)
    }

    /// The same, for the one who has the rest.
    pub(super) fn get_with<'t>(&'t self, unpublished: &'t Unpublished, key: u32) -> Names<'t> {
        let place = self.places.get(key as usize).filter(|place| place.text as usize == self.texts.count());
        place.map_or_else(|| self.get(key), |place| place.cut(&unpublished.0))
    }

    /// Finds room for the names of one more key, and says which number it has.
    pub(super) fn add(&self, unpublished: &mut Unpublished, names: Names<'_>) -> usize {
        if unpublished.0.len() >= FULL {
            self.publish(unpublished);
        }
        let at = unpublished.0.len();
        // Ids have at most 64 bytes and names at most 50 characters; a longer name is cut where it still is text.
        let name = &names.name[..names.name.floor_char_boundary(u8::MAX.into())];
        let user = names.user.unwrap_or_default();
        unpublished.0.extend([names.id, name, user]);
        let place = Place {
            text: u32::try_from(self.texts.count()).unwrap_or(u32::MAX),
            at: u16::try_from(at).unwrap_or(u16::MAX),
            id: u8::try_from(names.id.len()).unwrap_or(u8::MAX),
            name: u8::try_from(name.len()).unwrap_or(u8::MAX),
            user: u32::try_from(user.len()).unwrap_or(u32::MAX),
        };
        self.places.push(place)
    }

    /// Lets readers see what was added.
    pub(super) fn publish(&self, unpublished: &mut Unpublished) {
        if !unpublished.0.is_empty() {
            self.texts.push(std::mem::take(&mut unpublished.0).into());
        }
    }
}

impl Place {
    fn cut<'t>(&self, text: &'t str) -> Names<'t> {
        let part = |at: usize, length: usize| text.get(at..at + length).unwrap_or_default();
        let at = usize::from(self.at);
        let (id, name, user) = (usize::from(self.id), usize::from(self.name), self.user as usize);
        Names { id: part(at, id), name: part(at + id, name), user: (user > 0).then(|| part(at + id + name, user)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_before_and_after_readers_see_them() {
        let (table, mut unpublished) = (NameTable::default(), Unpublished::default());
        let long = "ö".repeat(400);
        let kinds = [
            Names { id: "a", name: "", user: None },
            Names { id: "b", name: "Schlüssel", user: Some("ursula") },
            Names { id: "c", name: &long, user: Some(&long) },
        ];
        // More than fit into one text, which ends in the middle of each kind at some time.
        let many: Vec<_> = kinds.iter().cycle().take(1_000).collect();
        for (number, names) in many.iter().enumerate() {
            assert_eq!(table.add(&mut unpublished, **names), number);
            assert_eq!(table.get_with(&unpublished, number as u32).id, names.id);
            if number == 500 {
                table.publish(&mut unpublished);
            }
        }
        assert_eq!(table.get(999), Names::NONE, "it is not published");
        table.publish(&mut unpublished);
        assert!(table.texts.count() > 2);
        for (number, names) in many.iter().enumerate() {
            let expected = Names { name: if names.id == "c" { &long[..254] } else { names.name }, ..**names };
            assert_eq!(table.get(number as u32), expected);
            assert_eq!(table.get_with(&unpublished, number as u32), expected);
        }
        assert_eq!(table.get(1_000), Names::NONE);
    }
}

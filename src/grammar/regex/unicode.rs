//! What Unicode says of characters, for the classes of regular expressions: general categories, scripts, and which
//! characters differ by case alone. The tables are those of the `regex` crate, which the tests compare them with, packed
//! into a twentieth of the size; they come from the Unicode Character Database (© Unicode, Inc.,
//! <https://www.unicode.org/license.txt>).

use crate::grammar::set::{LAST_CHAR, Set};

/// Runs of characters of one category, from character 0 on: a byte, whose upper five bits are the number of the
/// category and whose lower three the length of the run; where these are 0, the length follows as a number.
const CATEGORIES: &[u8] = include_bytes!("categories.bin");
/// Runs of characters of one script, from character 0 on: a byte, which is the number of the script, counted from 1, or
/// 0; and the length of the run as a number.
const SCRIPTS: &[u8] = include_bytes!("scripts.bin");
/// The characters that are not the first among those that differ by case alone: how far each is from the one before
/// it in this table, and from the first of its kind, both as numbers.
const CASES: &[u8] = include_bytes!("cases.bin");

/// The names of the categories in the order of their numbers.
pub(super) const CATEGORY_NAMES: &str = "\
    lu/uppercaseletter ll/lowercaseletter lt/titlecaseletter lm/modifierletter lo/otherletter mn/nonspacingmark \
    mc/spacingmark me/enclosingmark nd/decimalnumber/digit nl/letternumber no/othernumber pc/connectorpunctuation \
    pd/dashpunctuation ps/openpunctuation pe/closepunctuation pi/initialpunctuation pf/finalpunctuation \
    po/otherpunctuation sm/mathsymbol sc/currencysymbol sk/modifiersymbol so/othersymbol zs/spaceseparator \
    zl/lineseparator zp/paragraphseparator cc/control/cntrl cf/format co/privateuse cn/unassigned";
/// Categories that are several: all whose short names begin with the letter, or the three of cased letters.
const GROUP_NAMES: &str = "\
    l/letter m/mark/combiningmark n/number p/punctuation/punct s/symbol z/separator c/other lc/casedletter";
/// The names of the scripts in the order of their numbers.
pub(super) const SCRIPT_NAMES: &str = "\
    adlam/adlm ahom anatolianhieroglyphs/hluw arabic/arab armenian/armn avestan/avst balinese/bali bamum/bamu \
    bassavah/bass batak/batk bengali/beng bhaiksuki/bhks bopomofo/bopo brahmi/brah braille/brai buginese/bugi \
    buhid/buhd canadianaboriginal/cans carian/cari caucasianalbanian/aghb chakma/cakm cham cherokee/cher \
    chorasmian/chrs common/zyyy coptic/copt/qaac cuneiform/xsux cypriot/cprt cyprominoan/cpmn cyrillic/cyrl \
    deseret/dsrt devanagari/deva divesakuru/diak dogra/dogr duployan/dupl egyptianhieroglyphs/egyp elbasan/elba \
    elymaic/elym ethiopic/ethi garay/gara georgian/geor glagolitic/glag gothic/goth grantha/gran greek/grek \
    gujarati/gujr gunjalagondi/gong gurmukhi/guru gurungkhema/gukh hani/han hangul/hang hanifirohingya/rohg \
    hanunoo/hano hatran/hatr hebrew/hebr hiragana/hira imperialaramaic/armi inherited/qaai/zinh \
    inscriptionalpahlavi/phli inscriptionalparthian/prti javanese/java kaithi/kthi kannada/knda katakana/kana \
    kawi kayahli/kali kharoshthi/khar khitansmallscript/kits khmer/khmr khojki/khoj \
    khudawadi/sind kiratrai/krai laoo/lao latin/latn lepcha/lepc limbu/limb lineara/lina linearb/linb lisu \
    lycian/lyci lydian/lydi mahajani/mahj makasar/maka malayalam/mlym mandaic/mand manichaean/mani marchen/marc \
    masaramgondi/gonm medefaidrin/medf meeteimayek/mtei mendekikakui/mend meroiticcursive/merc \
    meroitichieroglyphs/mero miao/plrd modi mongolian/mong mroo/mro multani/mult myanmar/mymr nabataean/nbat \
    nagmundari/nagm nandinagari/nand newtailue/talu newa nkoo/nko nushu/nshu nyiakengpuachuehmong/hmnp ogham/ogam \
    olchiki/olck olonal/onao oldhungarian/hung olditalic/ital oldnortharabian/narb oldpermic/perm oldpersian/xpeo \
    oldsogdian/sogo oldsoutharabian/sarb oldturkic/orkh olduyghur/ougr oriya/orya osage/osge osmanya/osma \
    pahawhhmong/hmng palmyrene/palm paucinhau/pauc phagspa/phag phoenician/phnx psalterpahlavi/phlp rejang/rjng \
    runic/runr samaritan/samr saurashtra/saur sharada/shrd shavian/shaw siddham/sidd signwriting/sgnw sinhala/sinh \
    sogdian/sogd sorasompeng/sora soyombo/soyo sundanese/sund sunuwar/sunu sylotinagri/sylo syriac/syrc \
    tagalog/tglg tagbanwa/tagb taile/tale taitham/lana taiviet/tavt takri/takr tamil/taml tangsa/tnsa tangut/tang \
    telugu/telu thaana/thaa thai tibetan/tibt tifinagh/tfng tirhuta/tirh todhri/todr toto tulutigalari/tutg \
    ugaritic/ugar vaii/vai vithkuqi/vith wancho/wcho warangciti/wara yezidi/yezi yiii/yi \
    zanabazarsquare/zanb";

/// A number of seven bits a byte, the lowest first; the eighth says that more follow.
fn number(bytes: &mut impl Iterator<Item = u8>) -> u32 {
    let (mut value, mut shift) = (0, 0);
    for byte in bytes {
        value |= u32::from(byte & 0x7F) << shift;
        shift += 7;
        if byte < 0x80 {
            break;
        }
    }
    value
}

/// The characters of the categories that are wanted, by their short names.
fn of_categories(wanted: impl Fn(&str) -> bool) -> Set {
    let mut holds = [false; 32];
    for (holds, entry) in holds.iter_mut().zip(CATEGORY_NAMES.split(' ')) {
        *holds = wanted(entry.split('/').next().unwrap_or_default());
    }
    let mut bytes = CATEGORIES.iter().copied();
    let (mut ranges, mut start) = (Vec::new(), 0);
    while let Some(head) = bytes.next() {
        let len = if head & 7 == 0 { number(&mut bytes) } else { u32::from(head & 7) };
        if holds[usize::from(head >> 3)] {
            ranges.push((start, start + len - 1));
        }
        start += len;
    }
    Set::new(ranges)
}

fn of_script(script: usize) -> Set {
    let mut bytes = SCRIPTS.iter().copied();
    let (mut ranges, mut start) = (Vec::new(), 0);
    while let Some(head) = bytes.next() {
        let len = number(&mut bytes);
        if usize::from(head) == script {
            ranges.push((start, start + len - 1));
        }
        start += len;
    }
    Set::new(ranges)
}

/// The entry of a list of names that has this one, and its number.
fn entry<'a>(names: &'a str, name: &str) -> Option<(usize, &'a str)> {
    let mut entries = names.split(' ').enumerate();
    entries.find(|(_, entry)| entry.split('/').any(|known| known == name))
}

fn category(name: &str) -> Option<Set> {
    let short = |entry: &'static str| entry.split('/').next().unwrap_or_default();
    if let Some((_, found)) = entry(CATEGORY_NAMES, name) {
        return Some(of_categories(|category| category == short(found)));
    }
    let group = short(entry(GROUP_NAMES, name)?.1);
    Some(of_categories(|category| match group {
        "lc" => matches!(category, "lu" | "ll" | "lt"),
        letter => category.starts_with(letter),
    }))
}

fn script(name: &str) -> Option<Set> {
    entry(SCRIPT_NAMES, name).map(|(at, _)| of_script(at + 1))
}

/// The class `\p{name}`, whose name may be written in any case, with blanks, `_` and `-`: a general category, a script, or
/// `Any`, `Assigned`, `ASCII`; as `gc=Lu` or `sc=Greek`, too. Nothing where there is none of that name here.
pub(super) fn property(name: &str) -> Option<Set> {
    let plain = |text: &str| -> String {
        let text = text.chars().filter(|c| !matches!(c, '_' | '-') && !c.is_whitespace());
        let text: String = text.map(|c| c.to_ascii_lowercase()).collect();
        text.strip_prefix("is").map_or(text.clone(), str::to_string)
    };
    for separator in ["!=", "=", ":"] {
        if let Some((kind, value)) = name.split_once(separator) {
            let set = match plain(kind).as_str() {
                "gc" | "generalcategory" => category(&plain(value)),
                "sc" | "script" => script(&plain(value)),
                _ => None,
            }?;
            return Some(if separator == "!=" { set.negate(LAST_CHAR) } else { set });
        }
    }
    Some(match plain(name).as_str() {
        "any" => Set::new(vec![(0, LAST_CHAR)]),
        "ascii" => Set::new(vec![(0, 0x7F)]),
        "assigned" => category("cn")?.negate(LAST_CHAR),
        name => category(name).or_else(|| script(name))?,
    })
}

/// The class `\d`, `\s` or `\w`.
pub(super) fn perl(name: char) -> Set {
    match name {
        'd' => of_categories(|category| category == "nd"),
        's' => of_categories(|category| category.starts_with('z'))
            .union(Set::new(vec![(0x09, 0x0D), (0x85, 0x85)])),
        _ => {
            let word = |name: &str| name.starts_with(['l', 'm']) || matches!(name, "nd" | "nl" | "pc");
            // Joiners, and letters in circles and squares, which are symbols by their category.
            let more = [
                (0x200C, 0x200D),
                (0x24B6, 0x24E9),
                (0x1F130, 0x1F149),
                (0x1F150, 0x1F169),
                (0x1F170, 0x1F189),
            ];
            of_categories(word).union(Set::new(more.to_vec()))
        }
    }
}

/// Which characters differ by case alone.
pub(super) struct Cases {
    /// The first character of a kind, and another of it.
    pairs: Vec<(u32, u32)>,
}

impl Cases {
    pub(super) fn new() -> Cases {
        let mut bytes = CASES.iter().copied().peekable();
        let (mut pairs, mut last) = (Vec::new(), 0);
        while bytes.peek().is_some() {
            last += number(&mut bytes);
            pairs.push((last - number(&mut bytes), last));
        }
        pairs.sort_unstable();
        Cases { pairs }
    }

    /// The set, and what differs from a member by its case alone.
    pub(super) fn close(&self, set: Set) -> Set {
        let mut more = Vec::new();
        for kind in self.pairs.chunk_by(|a, b| a.0 == b.0) {
            let first = kind[0].0;
            if set.contains(first) || kind.iter().any(|pair| set.contains(pair.1)) {
                more.push((first, first));
                more.extend(kind.iter().map(|pair| (pair.1, pair.1)));
            }
        }
        set.union(Set::new(more))
    }
}

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::fuzz::{run, slips, spoilt_text, texts};

#[test]
fn a_page_token_comes_back_as_it_was_given_or_is_refused() {
    let lists = || (vec(texts(), 0..3), vec(0..8i32, 0..3));
    let cases = (lists(), lists(), vec(any::<u8>(), 0..200), slips());
    let wanted = ["the same", "refused"];
    run("page tokens", &wanted, cases, |(list, other, last, slips)| {
        let given = token(&list, &last);
        prop_assert_eq!(read(&list, &given), Ok(Some(last)));
        if other != list {
            prop_assert!(read(&other, &given).is_err(), "good for another list");
        }
        let spoilt = spoilt_text(&given, &slips);
        match read(&list, &spoilt) {
            Ok(None) => {
                prop_assert_eq!(spoilt, "");
                Ok("the first page")
            }
            Ok(Some(_)) => {
                prop_assert_eq!(spoilt, given);
                Ok("the same")
            }
            Err(error) => {
                prop_assert_eq!(error, Error::invalid("page_token", "is not one of this list"));
                Ok("refused")
            }
        }
    });
}

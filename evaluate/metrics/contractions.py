"""Contractions as VQA's official evaluation spells them out: data, published with the benchmark.

Source: Antol et al., VQA, ICCV 2015, and its evaluation code (visualqa.org). Written here as the forms with their
apostrophes; the few irregular entries follow.
"""

_FORMS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
he's how'd how'll how's I'd've I'm I've isn't it'd it'd've it'll let's ma'am mightn't mightn't've might've mustn't
must've needn't not've o'clock oughtn't shan't she'd've she's should've shouldn't shouldn't've somebody'd've
somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll that's
there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't
what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


def _spellings(form: str) -> list[str]:
    """The form with one of its apostrophes left out, each in turn; the table has none with several left out."""
    return [form[:place] + form[place + 1 :] for place, letter in enumerate(form) if letter == "'"]


CONTRACTIONS = {spelling: form for form in _FORMS.split() for spelling in _spellings(form)} | {
    "let's": "let's",
    "she's": "she's",
    "somebody'd": "somebodyd",
    "ow's'at": "'ow's'at",
    "'ows'at": "'ow's'at",
    "'ow'sat": "'ow's'at",
}
for _irregular in ("lets", "shes"):  # the published table keeps these two as they are
    del CONTRACTIONS[_irregular]

"""stub"""
RUSSIAN_VOWELS = "\u0430\u043e\u0443\u044b\u044d\u0438\u0435\u0451\u044e\u044f"
def ipa_of_russian(text: str) -> str:
    return text

"""What people and programs call the columns of a lead list, in the languages of Europe.

Names are compared without case, accents, punctuation and spaces (`header_key`). Within a field an
earlier name wins over a later one. Words that mean a different field depending on the other columns
("Name", "Kontakt") are in NAME_WORDS and CONTACT_WORDS and are decided by `sheet_columns`.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

LEAD_FIELDS = (
    "id",
    "email",
    "firstName",
    "lastName",
    "fullName",
    "companyName",
    "domain",
    "linkedinUrl",
    "phone",
    "title",
    "location",
    "city",
    "country",
)
"""The columns that are looked for; `city` and `country` become the lead's `location`."""

# A bar sets languages apart; languages that share a word have it once.
ALIASES = {
    "email": """
        email, e-mail, work email, business email, email address, e-mail address, mail,
        corporate email, professional email, email 1, e-mail 1 - value, email id, emails,
        most probable email
        | E-Mail-Adresse, Mailadresse, Mail-Adresse, E-Mail geschäftlich, geschäftliche
          E-Mail, E-Mail dienstlich
        | courriel, adresse e-mail, adresse mail, adresse électronique, email professionnel,
          mail pro, mail professionnel, adresse email professionnelle, mél
        | correo, correo electrónico, dirección de correo, dirección de correo electrónico,
          dirección de email
        | indirizzo email, indirizzo e-mail, indirizzo mail, posta elettronica, email
          aziendale, indirizzo di posta
        | endereço de email, endereço de e-mail, correio eletrónico, correio eletrônico,
          email profissional
        | e-mailadres, mailadres, zakelijk e-mailadres, zakelijke e-mail
        | adres email, adres e-mail, adres mailowy, poczta elektroniczna, email służbowy
        | e-post, e-postadress, mejl, mejladress, e-mailadresse, e-postadresse,
          epostadresse, arbejdsmail
        | sähköposti, sähköpostiosoite, s-posti
        | e-mailová adresa, emailová adresa, pracovní e-mail, e-mail cím, email cím,
          villanyposta
        | adresa de email, adresă email, adresa e-mail, adresa de e-mail, poștă electronică
        | e-pošta, adresa e-pošte, e-poštni naslov, e-posta, e-posta adresi, meiliaadress,
          el. paštas, e-pasts
        | ηλεκτρονικό ταχυδρομείο, электронная почта, почта, имейл
        | personal email, private email, private E-Mail, email personnel""",
    "firstName": """
        first name, given name, forename, first, fname, preferred name
        | Vorname, Rufname
        | prénom
        | nombre de pila, primer nombre
        | nome di battesimo
        | primeiro nome, nome próprio
        | voornaam, roepnaam
        | imię
        | förnamn, tilltalsnamn
        | fornavn
        | etunimi
        | křestní jméno
        | keresztnév, utónév
        | prenume
        | ime
        | krstné meno, eesnimi, vārds, vardas
        | όνομα, имя, име""",
    "lastName": """
        last name, surname, family name, last, lname
        | Nachname, Familienname, Zuname
        | nom de famille
        | apellidos, apellido, primer apellido
        | cognome
        | sobrenome, apelido, último nome
        | achternaam, familienaam
        | nazwisko
        | efternamn
        | etternavn, efternavn
        | sukunimi
        | příjmení, priezvisko
        | vezetéknév, családnév
        | nume de familie
        | prezime, priimek, perekonnanimi, uzvārds, pavardė, soyadı, soyad
        | επώνυμο, фамилия""",
    "fullName": """
        full name, contact name, person name, lead name, prospect name, contact full name,
        contact person, fn
        | vollständiger Name, Ansprechpartner, Ansprechpartnerin, Kontaktperson, Vor- und
          Nachname, Name des Kontakts, Kontaktname
        | nom complet, nom et prénom, prénom et nom, nom du contact, interlocuteur
        | nombre completo, nombre y apellidos, nombre y apellido, persona de contacto,
          nombre del contacto
        | nome completo, nome e cognome, cognome e nome, nominativo, referente, persona di
          contatto
        | nome e sobrenome, nome do contato, nome do contacto, pessoa de contato, pessoa de
          contacto
        | volledige naam, contactpersoon, naam contactpersoon
        | imię i nazwisko, osoba kontaktowa
        | fullständigt namn, för- och efternamn, kontaktnamn
        | fulde navn, fullt navn, kontaktnavn
        | koko nimi, yhteyshenkilö
        | celé jméno, jméno a příjmení, kontaktní osoba
        | teljes név, kapcsolattartó
        | nume complet, nume și prenume, persoană de contact
        | ime i prezime, ime in priimek, meno a priezvisko, ad soyad
        | ονοματεπώνυμο, фио""",
    "companyName": """
        company, company name, organization, organisation, organization name, organisation
        name, account name, account, employer, business, business name, current company,
        company / account, employer name, associated company, company name for emails, legal
        name, client, customer name, organization 1 - name
        | Firma, Firmenname, Unternehmen, Unternehmensname, Arbeitgeber, Gesellschaft,
          Betrieb, Kunde
        | société, entreprise, raison sociale, nom de la société, nom de l'entreprise, nom
          entreprise, nom société, compagnie, organisme, employeur, dénomination sociale
        | empresa, compañía, razón social, nombre de la empresa, nombre empresa, sociedad,
          organización
        | azienda, ragione sociale, società, nome azienda, impresa, ditta, denominazione
        | companhia, nome da empresa, razão social, organização
        | bedrijf, bedrijfsnaam, organisatie, werkgever, onderneming, naam bedrijf,
          handelsnaam
        | firma nazwa, nazwa firmy, nazwa, przedsiębiorstwo, spółka, organizacja, pracodawca
        | företag, företagsnamn, bolag, organisation namn, virksomhed, virksomhedsnavn,
          firmanavn, bedrift, bedriftsnavn, selskap, selskab, firmanamn, selskapsnavn,
          foretak
        | yritys, yrityksen nimi, yhtiö, organisaatio
        | společnost, název firmy, název společnosti, podnik, zaměstnavatel, spoločnosť,
          názov firmy
        | cég, cégnév, vállalat, cég neve
        | companie, firmă, denumire firmă, nume firmă, nume companie, societate
        | tvrtka, naziv tvrtke, podjetje, ettevõte, uzņēmums, įmonė, şirket, şirket adı
        | εταιρεία, επωνυμία, компания, организация, фирма""",
    "domain": """
        domain, company domain, company domain name, domain name, email domain, primary
        domain, website domain
        | website, website url, web site, company website, company website url, web, web
          address, homepage, url, site, company url, www, webpage, web page, link, site url,
          website 1 - value, organization website
        | Domäne, Webseite, Internetseite, Internetadresse, Webadresse, Firmenwebsite,
          Internet
        | domaine, nom de domaine, site web, site internet, adresse web, site de
          l'entreprise, page web
        | dominio, sitio web, página web, pagina web, web empresa
        | sito, sito web, sito internet, sito aziendale
        | domínio, site da empresa, sítio web, página
        | domein, domeinnaam, internetadres
        | domena, strona www, strona internetowa, strona, adres www, witryna
        | domän, webbplats, webbsida, hemsida, webbadress
        | domæne, domene, hjemmeside, nettsted, netside, nettside, hjemmesideadresse,
          webside
        | verkkotunnus, verkkosivu, verkkosivusto, kotisivu, nettisivu, www-osoite
        | doména, webové stránky, webová stránka, internetové stránky, stránky, internetová
          adresa
        | tartomány, domén, weboldal, honlap, weblap, webcím
        | domeniu, site-ul web, adresă web, pagină web
        | web stranica, spletna stran, veebileht, mājaslapa, svetainė, web sitesi
        | ιστοσελίδα, ιστότοπος, сайт, веб-сайт, домен""",
    "linkedinUrl": """
        LinkedIn URL, LinkedIn, person LinkedIn URL, LinkedIn profile, LinkedIn profile URL,
        LinkedIn link, contact LinkedIn URL, LinkedIn person URL, LI URL, profile URL,
        LinkedIn public URL, public profile URL, person LinkedIn, LinkedIn contact, default
        profile URL, LinkedIn member URL, social LinkedIn
        | LinkedIn Profil, LinkedIn-Profil-URL, LinkedIn-Adresse
        | profil LinkedIn, lien LinkedIn, URL LinkedIn
        | perfil de LinkedIn, perfil LinkedIn, enlace LinkedIn
        | profilo LinkedIn, link LinkedIn
        | LinkedIn profiel, LinkedIn-profiel URL
        | adres LinkedIn
        | LinkedIn-profil
        | LinkedIn-profiili""",
    "id": """
        id, lead id, contact id, record id, external id, person id, uuid, guid, key,
        reference, lead uuid, record id - contact, contact record id, Apollo contact id,
        HubSpot id, Salesforce id, identifier, row id
        | Kontakt-ID, Datensatz-ID, Kennung, lfd. Nr.
        | identifiant, référence
        | identificador, identificativo
        | identyfikator, tunniste, identifikátor, azonosító""",
    "phone": """
        phone, phone number, mobile, mobile phone, telephone, tel, direct phone, work direct
        phone, work phone, cell, cell phone, mobile number, phone 1, phone 1 - value,
        business phone, mobile phone number, direct dial
        | Telefon, Telefonnummer, Mobil, Handy, Handynummer, Mobiltelefon, Mobilnummer,
          Rufnummer, Tel.-Nr., Durchwahl, Telefon geschäftlich
        | téléphone, numéro de téléphone, portable, tél, mobile pro, téléphone portable,
          ligne directe
        | teléfono, número de teléfono, móvil, celular, teléfono móvil
        | telefono, cellulare, numero di telefono
        | telefone, telemóvel, número de telefone
        | telefoon, telefoonnummer, mobiel, gsm, mobiel nummer
        | numer telefonu, komórka, telefon komórkowy, nr telefonu
        | telefonnr, mobiltelefon, mobilnummer, mobilnr
        | puhelin, puhelinnumero, matkapuhelin
        | telefonní číslo, mobilní telefon, telefonszám, mobilszám
        | număr de telefon, telefon mobil, broj telefona, telefónne číslo
        | τηλέφωνο, телефон""",
    "title": """
        job title, title, position, role, job, current title, job position, occupation,
        headline, function, job role, current position, organization 1 - title
        | Funktion, Position im Unternehmen, Berufsbezeichnung, Stellenbezeichnung,
          Jobtitel, Stelle, Beruf
        | poste, fonction, intitulé du poste, titre du poste, titre, métier
        | cargo, puesto, puesto de trabajo, posición, función
        | ruolo, posizione, qualifica, mansione, carica
        | função, cargo atual
        | functie, functietitel, functienaam, rol
        | stanowisko, stanowisko pracy, funkcja, rola
        | titel, befattning, yrkestitel, roll, stilling, stillingsbetegnelse, jobbtittel,
          tittel, rolle
        | titteli, tehtävänimike, asema, rooli
        | pozice, pracovní pozice, funkce, pozícia
        | beosztás, munkakör, pozíció
        | funcție, post, titlu, poziție
        | pozicija, radno mjesto
        | θέση, должность""",
    "location": """
        location, person location, contact location, lead location, geo, geography, region, place
        | Standort, Region | lieu, localisation, région | ubicación, lugar
        | luogo, sede, posizione geografica | localização | locatie, regio | lokalizacja | plats
        | sijainti | lokalita | hely | locație | lokacija""",
    "city": """
        city, town, person city, contact city, mailing city, location city, locality,
        business city
        | Ort, Stadt, Wohnort, Firmensitz
        | ville, localité, commune
        | ciudad, localidad, población, municipio
        | città, comune, località
        | cidade, localidade, município
        | plaats, stad, woonplaats, vestigingsplaats
        | miasto, miejscowość
        | postort, by, sted, poststed, kaupunki, paikkakunta, postitoimipaikka
        | město, obec, mesto, város, település, oraș, localitate, grad, linn, şehir
        | πόλη, город""",
    "country": """
        country, country/region, country or region, person country, contact country, mailing
        country, location country, country code, business country
        | Land, Staat, Ländercode
        | pays
        | país
        | paese, nazione, stato estero
        | país/região
        | kraj, państwo
        | maa
        | země, stát, krajina
        | ország
        | țară, țara
        | država, riik, valsts, šalis, ülke
        | χώρα, страна""",
}


def word_set(words: str) -> frozenset[str]:
    """Return the words of a text as a set."""
    return frozenset(words.split())


# "Name" and its sisters, with what each one means beside a column for the other half of a name.
NAME_WORDS = {
    "name": "lastName",  # Name + Vorname
    "nom": "lastName",  # Nom + Prénom
    "naam": "lastName",
    "namn": "lastName",
    "navn": "lastName",
    "nimi": "lastName",
    "nev": "lastName",
    "nume": "lastName",  # Nume + Prenume
    "nome": "firstName",  # Nome + Cognome
    "nombre": "firstName",  # Nombre + Apellidos
    "jmeno": "firstName",  # Jméno + Příjmení
    "meno": "firstName",
    "ad": "firstName",
}
CONTACT_WORDS = word_set(
    """contact kontakt contacto contatto contato contacte kontakti kapcsolat yhteystieto lead
    person"""
)

# Words that say whose field it is and not which, taken off when the whole name is unknown.
QUALIFIERS = word_set(
    """contact contacts lead leads person persons prospect properties fields primary main work
    business professional company's current your the a of 1 value new crm hubspot salesforce input
    kontakt geschäftlich beruflich professionnel pro contacto contatto contato"""
)

# Letters that Unicode does not take apart into a letter and an accent.
LETTERS = str.maketrans(
    {"ł": "l", "ø": "o", "æ": "ae", "œ": "oe", "đ": "d", "ð": "d", "þ": "th", "ı": "i"}
)


def header_key(name: str) -> str:
    """Return a column's name without case, accents, punctuation and spaces: `E-Mail` → `email`."""
    apart = unicodedata.normalize("NFKD", name.casefold().translate(LETTERS))
    return "".join(letter for letter in apart if letter.isalnum())


@cache
def aliases_by_key() -> dict[str, tuple[str, int]]:
    """Map a header key to its lead field and its rank there, 0 being the best name."""
    known: dict[str, tuple[str, int]] = {}
    for field, names in ALIASES.items():
        for rank, name in enumerate(re.split(r"[,|]", names)):
            known.setdefault(header_key(name), (field, rank))
        known.setdefault(header_key(field), (field, 0))
    return known


@cache
def known_field(name: str) -> tuple[str, int] | None:
    """Return the lead field a column's name stands for and its rank, or None for an unknown name.

    A name that is known only without its qualifiers (`Primary contact: e-mail`) ranks behind all
    others.
    """
    known = aliases_by_key()
    if found := known.get(header_key(name)):
        return found
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    words = re.findall(r"[^\W_]+", spaced.casefold())
    bare = header_key("".join(word for word in words if word not in QUALIFIERS))
    if bare and (found := known.get(bare)):
        return found[0], found[1] + 1000
    return None


def is_known_header(name: str) -> bool:
    """Tell if a cell of a first row reads like the name of a column."""
    key = header_key(name)
    return bool(key) and (
        known_field(name) is not None or key in NAME_WORDS or key in CONTACT_WORDS
    )

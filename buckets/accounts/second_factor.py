"""The page that asks for the code of an app, and that sets one up or removes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import django_otp
import segno
from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import ValidationError
from django.http import HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.safestring import mark_safe
from django.views import View

from buckets import selectors, services
from buckets.models.second_factors import SecondFactor, new_salt

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

SET_UP = "From now on you need a code of your app to log in."
REMOVED = "Your password alone logs you in now."
_SALT = "second_factor_salt"


def is_owed(request: HttpRequest) -> bool:
    """Tell whether the password alone is not enough for this request."""
    user: Any = request.user
    if not user.is_authenticated or user.is_verified():
        return False
    if request.path_info in {reverse("admin:second_factor"), reverse("admin:logout")}:
        return False
    return settings.SITE.second_factor_required or selectors.second_factor_of(user) is not None


def page_url(request: HttpRequest) -> str:
    """Link to the page that asks for the code, and leads back to where the request went."""
    page = reverse("admin:second_factor")
    if request.method != "GET":
        return page
    return f"{page}?{urlencode({'next': request.get_full_path()})}"


class CodeForm(forms.Form):
    code = forms.CharField(
        label="Code",
        max_length=10,
        widget=forms.TextInput(
            attrs={"autocomplete": "one-time-code", "inputmode": "numeric", "autofocus": True}
        ),
    )


class SecondFactorPage(View):
    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not request.user.is_authenticated:
            return redirect_to_login(request.get_full_path(), reverse("admin:login"))
        self.user: Any = request.user
        self.factor = selectors.second_factor_of(request.user)
        return super().dispatch(request, *args, **kwargs)

    def get(self, _request: HttpRequest) -> HttpResponseBase:
        return self._page(CodeForm())

    def post(self, request: HttpRequest) -> HttpResponseBase:
        form = CodeForm(request.POST)
        if form.is_valid():
            try:
                self._use(form.cleaned_data["code"])
            except ValidationError as exc:
                form.add_error(None, exc)
            else:
                return HttpResponseRedirect(self._next())
        return self._page(form)

    def _use(self, code: str) -> None:
        if self.factor is None:
            factor = services.set_up_second_factor(user=self.user, salt=self._salt(), code=code)
            messages.success(self.request, SET_UP)
            self._let_in(factor)
        elif not self.user.is_verified():
            self._let_in(services.verify_second_factor(factor=self.factor, code=code))
        else:
            services.verify_second_factor(factor=self.factor, code=code)
            services.remove_second_factor(user=self.user, by=self.user)
            messages.success(self.request, REMOVED)

    def _let_in(self, factor: SecondFactor) -> None:
        self.request.session.pop(_SALT, None)
        self.request.session.cycle_key()  # what was known of the session before is of no use now
        django_otp.login(self.request, factor)

    def _next(self) -> str:
        wanted = self.request.POST.get("next", "")
        hosts = {self.request.get_host()}
        if url_has_allowed_host_and_scheme(wanted, hosts, require_https=self.request.is_secure()):
            return wanted
        return reverse("admin:index")

    def _page(self, form: CodeForm) -> TemplateResponse:
        request = self.request
        is_asked = self.factor is not None and not self.user.is_verified()
        context = admin.site.each_context(request) | {
            "title": "Second factor",
            "form": form,
            "next": request.POST.get("next", request.GET.get("next", "")),
            "is_asked": is_asked,
            "is_required": settings.SITE.second_factor_required,
            "app": None if self.factor else self._new_app(),
        }
        if is_asked or (self.factor is None and settings.SITE.second_factor_required):
            context["has_permission"] = False  # no menus of pages that would only lead back here
        return TemplateResponse(request, "admin/second_factor.html", context)

    def _salt(self) -> str:
        """Keep an app's key the same until the app is set up, or the session ends."""
        salt: str = self.request.session.setdefault(_SALT, new_salt())
        return salt

    def _new_app(self) -> dict[str, str]:
        factor = SecondFactor(user=self.user, salt=self._salt())
        drawn = segno.make(factor.url, micro=False).svg_inline(scale=5, border=2)
        key = factor.key_to_type
        return {
            "picture": mark_safe(drawn),  # noqa: S308 - drawn here
            "key": " ".join(key[at : at + 4] for at in range(0, len(key), 4)),
        }

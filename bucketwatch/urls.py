"""Every route: the probes, the API, and the admin for everything else."""

from django.contrib import admin
from django.urls import include, path, re_path
from django.views.generic import RedirectView

from buckets.api.errors import no_such_route
from buckets.api.probes import PROBES

handler400 = "buckets.api.errors.bad_request"
handler500 = "buckets.api.errors.server_error"

urlpatterns = [
    *(re_path(rf"^{name}/?$", view, name=name) for name, view in PROBES.items()),
    re_path(r"^api$", no_such_route),
    path("api/", include(("buckets.api.urls", "api"))),
    path("admin/", admin.site.urls),
    path("", RedirectView.as_view(pattern_name="admin:index"), name="home"),
]
